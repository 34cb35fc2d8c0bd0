"""Precision that keeps to the parts that train; Lightning's plugins convert all of a task, what is frozen included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from lightning.pytorch.plugins.precision import DeepSpeedPrecision, HalfPrecision


class TrainablePartsPrecision(HalfPrecision):
    """Parameters that train, and the optimizer's state, in bfloat16, as the release trained 3B.

    The tokenizer, the text encoder and the statistics of motions stay as they are: rounding them would change codes
    and motions, and an artifact of the run would hold a tokenizer that is not the one the codes came from.
    """

    def convert_module(self, module: Any) -> Any:
        """Convert what the task says."""
        module.to_half(self._desired_input_dtype)
        return module

    def convert_input(self, data: Any) -> Any:
        """Do not convert batches; a task casts the inputs of its network."""
        return data

    def tensor_init_context(self) -> AbstractContextManager[None]:
        """Keep torch's default dtype."""
        return nullcontext()

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        """Keep torch's default dtype."""
        yield


class ZeroPrecision(DeepSpeedPrecision):
    """DeepSpeed's engine converts the module that it is given (`zero.ZeRO` gives it the parts that train)."""

    def convert_module(self, module: Any) -> Any:
        """Nothing: the engine does."""
        return module

    def convert_input(self, data: Any) -> Any:
        """Do not convert batches; a task casts the inputs of its network."""
        return data
