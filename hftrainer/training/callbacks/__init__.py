"""What runs beside training: averages, artifacts, and validation that reconstructs or generates."""
