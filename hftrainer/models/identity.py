"""What an embedding depends on beside its content, as a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn


def weights_identity(network: nn.Module, arrays: Mapping[str, NDArray[Any]], *settings: str) -> str:
    """SHA-256 over a network's weights, further arrays by name (statistics), and settings that change outputs."""
    digest = hashlib.sha256()
    weights = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in network.state_dict().items()}
    for name, array in {**weights, **arrays}.items():
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    for setting in settings:
        digest.update(f"setting {setting}".encode())
    return digest.hexdigest()
