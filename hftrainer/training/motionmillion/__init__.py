"""Training the parts of Go to Zero: its tokenizer, and its transformer."""
