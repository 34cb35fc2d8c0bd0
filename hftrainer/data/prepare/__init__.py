"""Making datasets: imports, captions, augmentation, splits, statistics, verification."""
