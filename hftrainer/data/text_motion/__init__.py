"""Captions with the motions that they describe, and sentences with labels or embeddings."""
