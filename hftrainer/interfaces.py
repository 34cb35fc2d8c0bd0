"""What the framework asks of models, as protocols: whatever offers these methods is a tenant.

A model that generates is a `TextToMotion` pipeline over a `Bundle`; a bundle that turns motions into codes offers a
`MotionTokenizer`; an `Evaluator` embeds texts and motions; an `Outlinable` bundle can be
described without a weight in memory. Nothing
here asks for more than two independent models use. ``docs/extending.md`` builds a model on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from hftrainer.requests import GenerationRequest, SamplingParams


@runtime_checkable
class Bundle(Protocol):
    """The parts of a model, a ``torch.nn.Module`` of the registry MODELS: what training makes and an artifact holds.

    One with motion codes has a `codebook_size`, one with statistics ``set_statistics(mean, std, representation)``.
    """

    representation: str  # a name in REPRESENTATIONS: what its motions are made of
    pipeline: str  # a name in PIPELINES: what makes motions with it

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write an artifact folder, whose ``model_index.json`` has ``{"pipeline": ..., "representation": ...}``."""

    def parts(self) -> dict[str, torch.nn.Module | None]:
        """The parts by the names under which a user knows them; None for one that is missing."""


@runtime_checkable
class TextToMotion(Protocol):
    """A pipeline of the registry PIPELINES: captions in, motions in physical units out.

    `hftrainer.pipelines.base.TextToMotionPipeline` has everything but `run`. The class has ``from_pretrained(folder,
    *, device, dtype, **options)`` and ``from_bundle(bundle)``.
    """

    bundle: Any
    sampling: SamplingParams
    max_sample_steps: int

    @property
    def representation(self) -> str:
        """A name in REPRESENTATIONS: what the motions are made of."""

    @property
    def frames_per_code(self) -> int:
        """Frames that one more code brings."""

    def run(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParams, *, batch_size: int | None = None
    ) -> Iterator[tuple[int, Any]]:
        """Motions with the positions of their requests, as they get ready."""

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Text tokens of each caption, before any cut."""

    @property
    def max_text_tokens(self) -> int:
        """Text tokens that the model is shown."""


@runtime_checkable
class MotionTokenizer(Protocol):
    """Motions in physical units to codes. `sha256` identifies the weights and statistics that make the codes."""

    codebook_size: int
    frames_per_code: int
    sha256: str

    @property
    def representation(self) -> str:
        """A name in REPRESENTATIONS: what motions it reads."""

    def encode(self, motions: Sequence[NDArray[np.float32]]) -> list[NDArray[np.int64]]:
        """Codes of motions (T_i, width), each as if encoded by itself."""

    def decode(self, codes: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """Motions (len(codes_i) * frames_per_code, width) of codes, each as if decoded by itself."""


@runtime_checkable
class Evaluator(Protocol):
    """Puts motions and texts into one space. The class has ``from_pretrained(folder, *, device, **options)``.

    `max_frames`: the longest motion that it reads; callers cut longer ones. None: any.
    """

    max_frames: int | None

    @property
    def representation(self) -> str:
        """A name in REPRESENTATIONS: what motions it reads."""

    def encode_motions(
        self, motions: Sequence[NDArray[np.float32]], lengths: Sequence[int] | None = None, batch_size: int = 32
    ) -> NDArray[np.float32]:
        """Embeddings (N, d) of motions (T_i, width) in physical units."""

    def encode_texts(self, texts: Sequence[str], batch_size: int = 32) -> NDArray[np.float32]:
        """Embeddings (N, d) of texts."""


@runtime_checkable
class Outlinable(Protocol):
    """A class of MODELS that can be built without its files and without memory for weights, for ``--dry-run``."""

    @classmethod
    def outline(cls, config: Any) -> tuple[torch.nn.Module | None, list[str]]:
        """The model on the meta device, and notes on what is not known; None where its sizes are not known.

        Called inside ``torch.device("meta")``; reads no weights.
        """
