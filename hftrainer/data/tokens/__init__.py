"""Motion codes: one table a dataset, the rows that a transformer trains on, and their flat form."""
