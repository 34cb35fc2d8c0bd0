"""Pictures of motions: pages and films that people look at."""
