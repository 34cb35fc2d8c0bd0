"""Only motion: windows of it for the tokenizer, from a folder or from one memory-mapped array."""
