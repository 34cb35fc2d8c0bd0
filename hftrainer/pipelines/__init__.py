"""Text in, motion out."""
