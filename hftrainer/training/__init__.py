"""How models are trained: Lightning modules (tasks), callbacks, optimizers, and `fit`."""
