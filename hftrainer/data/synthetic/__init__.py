"""Procedural datasets, free of anyone's rights, for debug configurations and tests."""
