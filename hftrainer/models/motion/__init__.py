"""Motion models, a folder each."""
