"""Plain torch networks that several models share."""
