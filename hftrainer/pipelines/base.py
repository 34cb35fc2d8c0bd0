"""What every text-to-motion pipeline does: checks, seeds, lengths. A model adds how its codes become motion.

A subclass registers itself in PIPELINES, says in `artifact_names` which ``_class_name`` of a ``model_index.json`` is
meant for it, and implements `from_pretrained`, `run`, `frames_per_code`, `count_tokens` and `max_text_tokens`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hftrainer.config import ConfigError, typed
from hftrainer.interfaces import MotionTokenizer
from hftrainer.motion.body import Body, smpl_body
from hftrainer.motion.representation.base import Representation, get_representation
from hftrainer.pipelines.prompts import check_captions, seeded_rows
from hftrainer.pipelines.reading import PromptReading
from hftrainer.pipelines.shown import Shown
from hftrainer.pipelines.sized import SizedIterator, show_progress
from hftrainer.readers import read_json
from hftrainer.registry import PIPELINES
from hftrainer.requests import GenerationRequest, SamplingParams, warn_of_guidance

Float32 = NDArray[np.float32]
Progress = Callable[[Iterable[Any]], Iterable[Any]]
GENERATION_CONFIG = "generation_config.json"


@dataclass
class GeneratedMotion(Shown):
    """`motion` (T, width) in physical units, in its `representation`; how it was made; whether it `ended` by itself.

    `text_tokens`: tokens of the prompt before any cut. `body`: what the motion is shown on; `joints`, `rotations`,
    `save` and `show` (see `Shown`) have the motion fitted to it. `known`, `similarity`, `nearest` and `warnings`: what
    the model says of the prompt, and `prompt_seconds`, the length that it reads there (see
    `hftrainer.pipelines.knowledge.Assessment`); None and nothing where it cannot.
    """

    motion: Float32
    prompt: str
    seed: int | None
    tokens: NDArray[np.int64]
    ended: bool
    text_tokens: int
    representation: str
    body: Body = field(default_factory=smpl_body, repr=False)
    known: bool | None = None
    similarity: float | None = None
    nearest: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    prompt_seconds: float | None = None

    @property
    def fps(self) -> float:
        """Frames a second."""
        return get_representation(self.representation).fps

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.motion) / self.fps


def pipeline_of(bundle: Any) -> TextToMotionPipeline:
    """The pipeline that a bundle's class names (`pipeline`, a name in PIPELINES), over that bundle."""
    name = getattr(bundle, "pipeline", None)
    if not isinstance(name, str):
        raise ConfigError(
            f"the model {type(bundle).__name__} names no pipeline, so nothing can be generated with it; set `pipeline` "
            "in its class to a name in PIPELINES"
        )
    made: TextToMotionPipeline = PIPELINES.get(name).from_bundle(bundle)  # type: ignore[attr-defined]
    return made


def read_sampling(folder: Path) -> SamplingParams:
    """How a model folder's generation_config.json says that codes are chosen; greedy without one."""
    path = folder / GENERATION_CONFIG
    return typed(SamplingParams, read_json(path), path=str(path)) if path.is_file() else SamplingParams()


class TextToMotionPipeline(PromptReading):
    """A `bundle` that makes motion of text; see `hftrainer.interfaces.TextToMotion`.

    `sampling` is what calls use unless they say otherwise. `max_sample_steps`: the most codes of one motion.
    """

    artifact_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, bundle: Any, *, max_sample_steps: int = 150, sampling: SamplingParams | None = None):
        self.bundle = bundle
        self.max_sample_steps = max_sample_steps
        self.sampling = sampling or SamplingParams()

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **options: Any) -> TextToMotionPipeline:
        """Load an artifact folder; at least device, dtype, revision, cache_dir, local_files_only, token are options."""
        raise NotImplementedError

    @classmethod
    def from_bundle(cls, bundle: Any) -> TextToMotionPipeline:
        """A pipeline over a bundle that is in memory, as callbacks need it."""
        return cls(bundle)

    # --- what a model says ----------------------------------------------------------------------------------------

    def run(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParams, *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GeneratedMotion]]:
        """Motions with the positions of their requests, as they get ready; each is cut to its request's frames."""
        raise NotImplementedError

    @property
    def frames_per_code(self) -> int:
        """Frames that one more code brings."""
        raise NotImplementedError

    @property
    def lookahead_codes(self) -> int:
        """Codes behind a frame that still change it; 0 for a decoder that does not look ahead."""
        return 0

    def facts(self) -> dict[str, str]:
        """What `hftrainer doctor` says of the model beside its parts: names and values."""
        return {}

    @classmethod
    def load_tokenizer(cls, folder: Path, *, device: str = "cpu") -> MotionTokenizer:
        """The motion tokenizer of an artifact folder, without the rest of the model."""
        raise ConfigError(f"{folder}: models of {cls.__name__} have no motion tokenizer")

    @property
    def representation(self) -> str:
        """The name of what the motions are made of."""
        return str(self.bundle.representation)

    @property
    def motion_format(self) -> Representation:
        """The representation itself."""
        return get_representation(self.representation)

    # --- end to end ----------------------------------------------------------------------------------------------

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        seconds: float | None = None,
        num_motions: int = 1,
        seed: int | None = 0,
        sampling: SamplingParams | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
        batch_size: int | None = None,
        truncate: bool = False,
        strict: bool = False,
        progress: Progress = show_progress,
    ) -> list[GeneratedMotion]:
        """`num_motions` motions for each prompt, prompt by prompt.

        The j-th motion of a prompt is drawn with seed `seed` + j and depends on nothing else: not on other prompts,
        their order or the batch size. A prompt that is listed twice continues counting.

        `seconds`: exactly so long; the model keeps moving until then (END is not allowed before) and is cut there.
        Without it a motion ends when the model says so, after at most `max_sample_steps` codes. `temperature`, `top_k`
        and `top_p` replace those of `sampling` and imply that codes are drawn at random; `guidance_scale` replaces that
        of `sampling`. Text longer than the model is shown is an error unless `truncate`; a prompt that the model does
        not know is a `PromptWarning`, or an `UnknownPrompt` error if `strict`. `progress` wraps the motions as they get
        ready: by default a bar, on a terminal or in a notebook.
        """
        if isinstance(num_motions, bool) or not isinstance(num_motions, int) or num_motions < 1:
            raise ValueError(f"num_motions must be a whole number of at least 1, got {num_motions!r}")
        texts = check_captions([prompts] if isinstance(prompts, str) else prompts)
        rows = seeded_rows([text for text in texts for _ in range(num_motions)], seed)
        if strict:
            self.refuse_unknown(texts)
        self.warn_of_unknown(texts)
        return self.generate_rows(
            rows,
            seconds=seconds,
            sampling=self.sampling_for(
                sampling, temperature=temperature, top_k=top_k, top_p=top_p, guidance_scale=guidance_scale
            ),
            batch_size=batch_size,
            truncate=truncate,
            progress=progress,
        )

    def generate_rows(
        self,
        rows: Sequence[tuple[str, int | None]],
        *,
        seconds: float | None = None,
        sampling: SamplingParams | None = None,
        batch_size: int | None = None,
        truncate: bool = False,
        progress: Progress = iter,
    ) -> list[GeneratedMotion]:
        """One motion for each (prompt, seed); see `__call__`."""
        captions = check_captions([text for text, _ in rows])
        if not truncate:
            self.check_prompt_lengths(captions)
        sampling = sampling or self.sampling
        warn_of_guidance(self.sampling, sampling)
        frames = None if seconds is None else self.check_seconds(seconds)
        requests = [
            self.request(text, seed, sampling, frames or self.frames_asked(text))
            for text, (_, seed) in zip(captions, rows, strict=True)
        ]
        return self.generate(requests, sampling, batch_size=batch_size, progress=progress)

    def generate(
        self,
        requests: Sequence[GenerationRequest],
        sampling: SamplingParams,
        *,
        batch_size: int | None = None,
        progress: Progress = iter,
    ) -> list[GeneratedMotion]:
        """The motions of all requests, in their order."""
        stream = self.run(requests, sampling, batch_size=batch_size)
        made = dict(progress(SizedIterator(stream, len(requests))))
        return [made[i] for i in range(len(requests))]

    def infer_t2m(
        self,
        captions: Sequence[str],
        lengths: Sequence[int] | None = None,
        max_sample_steps: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        num_return_sequences: int = 1,
    ) -> list[Float32]:
        """Motions (T_i, width), `num_return_sequences` a caption, caption by caption; greedy unless `do_sample`.

        `lengths` in frames: a longer motion is cut to its length, a shorter one stays as it is, and no codes are
        decoded that the cut would drop. A motion whose first code is END has no frames. Text longer than the model is
        shown is cut off with a warning. With a `seed`, each caption is drawn with it whatever the other captions are; a
        caption that is repeated counts up.
        """
        captions = check_captions(captions)
        if num_return_sequences < 1 or (num_return_sequences > 1 and not do_sample):
            raise ValueError(
                f"num_return_sequences={num_return_sequences}: must be at least 1, and above "
                "1 only with do_sample=True "
                "(greedy motions of one caption are identical)"
            )
        if lengths is not None and len(lengths) != len(captions):
            raise ValueError(f"got {len(lengths)} lengths for {len(captions)} captions")
        cuts = [None] * len(captions) if lengths is None else [int(length) for length in lengths]
        steps = self.max_sample_steps if max_sample_steps is None else max_sample_steps
        rows = [(text, cut) for text, cut in zip(captions, cuts, strict=True) for _ in range(num_return_sequences)]
        requests = [
            GenerationRequest(text, seed, steps if cut is None else min(steps, self.codes_for(cut)), 0, cut)
            for (text, cut), (_, seed) in zip(rows, seeded_rows([text for text, _ in rows], seed), strict=True)
        ]
        sampling = SamplingParams(do_sample, temperature, top_k, top_p, guidance_scale=guidance_scale)
        return [made.motion for made in self.generate(requests, sampling, batch_size=batch_size)]

    # --- requests and their checks, before work is spent ----------------------------------------------------------

    def request(
        self, caption: str, seed: int | None, sampling: SamplingParams, frames: int | None = None
    ) -> GenerationRequest:
        """What `run` is asked for: a motion that ends by itself, or one of exactly `frames` frames."""
        if frames is None:
            return GenerationRequest(caption, seed, self.max_sample_steps, sampling.min_new_tokens)
        most = min(self.max_sample_steps, self.codes_for(frames))
        return GenerationRequest(caption, seed, most, -(-frames // self.frames_per_code), frames)

    def sampling_for(self, sampling: SamplingParams | None = None, **given: Any) -> SamplingParams:
        """`sampling`, or the model's own, with what is given (not None) in place of its values."""
        if sampling is not None and not isinstance(sampling, SamplingParams):
            raise TypeError(f"sampling must be SamplingParams, got {sampling!r}")
        sampling = sampling or self.sampling
        chosen = {key: value for key, value in given.items() if value is not None}
        drawn = sampling.do_sample or bool(chosen.keys() - {"guidance_scale"})
        return dataclasses.replace(sampling, **chosen, do_sample=drawn) if chosen else sampling

    def codes_for(self, frames: int) -> int:
        """Codes after which the first `frames` frames no longer change."""
        return -(-int(frames) // self.frames_per_code) + self.lookahead_codes

    @property
    def max_seconds(self) -> float:
        """The longest motion of one prompt."""
        return self.max_sample_steps * self.frames_per_code / self.motion_format.fps

    def frames_asked(self, prompt: str) -> int | None:
        """Frames of the seconds that are read in a prompt; None if there are none."""
        seconds = self.assess(prompt).seconds
        return None if seconds is None else max(1, round(seconds * self.motion_format.fps))

    def check_seconds(self, seconds: float) -> int:
        """Frames of `seconds`; an error for what the model cannot make."""
        fps, longest = self.motion_format.fps, self.max_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float, np.number)):
            raise TypeError(f"seconds must be a number, got {seconds!r}")
        asked = float(seconds) if abs(seconds) < 1e6 else np.inf  # whole numbers may be larger than any float
        frames = round(asked * fps) if np.isfinite(asked) else 0
        if not 1 <= frames <= longest * fps:
            raise ValueError(
                f"a motion of {asked:g} s cannot be generated: this model generates up to {longest:g} s "
                f"({self.max_sample_steps} codes); ask for less, or for several parts"
            )
        return frames
