"""Weight files of every form, read without running code from them, and safetensors, written tensor by tensor."""

from hftrainer.models.checkpoint.errors import CheckpointError, UnsafeCheckpoint
from hftrainer.models.checkpoint.int8_rows import with_matrices, write_int8_module
from hftrainer.models.checkpoint.modules import (
    assign,
    check_finite,
    check_fit,
    find_weights,
    skeleton,
    tensor_hash,
    write_index,
    write_module,
    write_state,
)
from hftrainer.models.checkpoint.reader import INDEX_SUFFIX, Checkpoint, open_checkpoint
from hftrainer.models.checkpoint.safetensors import read_metadata, write_safetensors

__all__ = [
    "INDEX_SUFFIX",
    "Checkpoint",
    "CheckpointError",
    "UnsafeCheckpoint",
    "assign",
    "check_finite",
    "check_fit",
    "find_weights",
    "open_checkpoint",
    "read_metadata",
    "skeleton",
    "tensor_hash",
    "with_matrices",
    "write_index",
    "write_int8_module",
    "write_module",
    "write_safetensors",
    "write_state",
]
