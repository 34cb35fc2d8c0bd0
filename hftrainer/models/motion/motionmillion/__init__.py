"""Go to Zero (MotionMillion, arXiv 2507.07095)."""
