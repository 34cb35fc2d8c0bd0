"""Bodies and numbers: skeletons, rotations, representations, file formats, pictures. No model and no config.

Functions take numpy arrays or torch tensors and give back the same kind. Time is axis -2 of features, joints are
metres, Y is up, and a body at rest faces +Z with its left on +X.
"""
