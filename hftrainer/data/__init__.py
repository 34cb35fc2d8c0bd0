"""From files to batches: dataset folders, their preparation and verification, and what a training step is fed."""
