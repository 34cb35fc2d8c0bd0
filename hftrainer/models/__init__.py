"""What has parameters: networks, the bundles that hold them, and reading and writing their files."""
