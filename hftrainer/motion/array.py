"""One spelling for numpy and torch: ``xp = namespace(x)``; then ``xp.stack(..., axis=-1)`` works for both.

torch accepts numpy's names for arguments (``axis``, ``keepdims``), so arithmetic is written once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any  # a numpy array or a torch tensor; functions return the kind they were given


def namespace(x: Array) -> Any:
    """The module, numpy or torch, whose functions take `x`."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    if type(x).__module__.partition(".")[0] == "torch":
        import torch

        return torch
    raise TypeError(f"expected a numpy array or a torch tensor, got {type(x).__name__}")


def like(values: Any, x: Array) -> Array:
    """`values` as an array of the kind, dtype and device of `x`."""
    if namespace(x) is np:
        return np.asarray(values, dtype=x.dtype)
    import torch

    return torch.as_tensor(values, dtype=x.dtype, device=x.device)


def expect_shape(x: Array, tail: tuple[int | str, ...], name: str) -> None:
    """Raise ``ValueError`` unless the last axes of `x` are `tail`; a string in `tail` stands for any size."""
    shape = tuple(x.shape)
    fits = len(shape) >= len(tail) and all(
        isinstance(want, str) or want == got for want, got in zip(tail, shape[len(shape) - len(tail) :], strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, ("...", *tail)))
        raise ValueError(f"{name} must have shape ({wanted}), got {shape}")


def widen(x: Array) -> Array:
    """`x` in float64, for sums over many frames; on a device without float64 (Apple's), unchanged."""
    if namespace(x) is np:
        return x.astype(np.float64)
    return x if x.device.type == "mps" else x.double()


def astype(x: Array, other: Array) -> Array:
    """`x` in the dtype of `other`."""
    return x.astype(other.dtype) if namespace(x) is np else x.to(other.dtype)
