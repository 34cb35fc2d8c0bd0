"""Motion as feature vectors: what each channel is, and the way to joints and rotations and back."""
