"""Pictures of motions: a video file, and an offline page that plays them in 3D."""
