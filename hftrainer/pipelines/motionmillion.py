"""Go to Zero as a pipeline: captions in, motions in physical units out."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from hftrainer.config import typed
from hftrainer.models.motion.motionmillion.artifact import CONFIG, fetch
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle
from hftrainer.models.motion.motionmillion.sampling import Choice, CodeSampler, Finished
from hftrainer.motion.representation.spec import MOTION272
from hftrainer.pipelines.prompts import PromptTooLong, check_captions, seeded_rows, shorten_text
from hftrainer.pipelines.sized import SizedIterator
from hftrainer.registry import PIPELINES

Float32 = NDArray[np.float32]
GENERATION_CONFIG = "generation_config.json"
DECODED_TOGETHER = 32


@dataclass
class GeneratedMotion:
    """`motion` (T, 272) in physical units at 30 fps, how it came about, and whether it `ended` by itself."""

    motion: Float32
    prompt: str
    seed: int | None
    tokens: NDArray[np.int64]
    ended: bool
    text_tokens: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.motion) / MOTION272.fps


@dataclass
class Sampling:
    """How codes are chosen. `min_new_tokens`: END is not allowed before."""

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_new_tokens: int = 0

    def choice(self) -> Choice:
        """How one code is chosen; ``ValueError`` for settings that mean nothing."""
        return Choice(self.do_sample, self.temperature, self.top_k, self.top_p)


@PIPELINES.register("motionmillion")
class MotionMillionPipeline:
    """Text encoder, transformer, tokenizer decoder, statistics; all of them in `bundle`.

    `sampling` is what calls use unless they say otherwise: the model's generation_config.json, or greedy.
    `free_text_encoder`: encode all prompts of a call first, then let go of the encoder's weights (4.9 GB for
    Flan-T5-XL) before the transformer runs; the next call loads them again.
    """

    artifact_files = (CONFIG,)  # by which a folder without model_index.json is recognized

    def __init__(
        self,
        bundle: MotionMillionBundle,
        *,
        device: str | torch.device | None = None,
        max_sample_steps: int = 150,
        sampling: Sampling | None = None,
        free_text_encoder: bool = False,
    ):
        self.bundle = bundle.to(device) if device is not None else bundle
        self.max_sample_steps = max_sample_steps
        self.sampling = sampling or Sampling()
        self.free_text_encoder = free_text_encoder

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        max_sample_steps: int = 150,
        free_text_encoder: bool = False,
        **options: Any,
    ) -> MotionMillionPipeline:
        """Load an artifact folder or a hub repository.

        `dtype` is the transformer's; the tokenizer always computes in float32. `options` (text_encoder, text_features,
        device_map, quantize, adapter, verify) are those of `MotionMillionBundle.from_pretrained`.
        """
        hub: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
        parts = {key: options[key] for key in ("text_encoder", "text_features", "load_ar") if key in options}
        folder = fetch(name_or_path, revision=revision, **parts, **hub)
        bundle = MotionMillionBundle.from_pretrained(
            folder, device=device, dtype=dtype, text_on_demand=free_text_encoder, **options, **hub
        )
        return cls(
            bundle,
            max_sample_steps=max_sample_steps,
            sampling=read_sampling(folder),
            free_text_encoder=free_text_encoder,
        )

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model; see `MotionMillionBundle.push_to_hub`."""
        return self.bundle.push_to_hub(repo_id, **options)

    # --- the whole way --------------------------------------------------------------------------------------------

    def infer_t2m(
        self,
        captions: Sequence[str],
        lengths: Sequence[int] | None = None,
        max_sample_steps: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        batch_size: int | None = None,
        num_return_sequences: int = 1,
    ) -> list[Float32]:
        """Motions (T_i, 272), `num_return_sequences` a caption, caption by caption; greedy unless `do_sample`.

        `lengths` in frames: a longer motion is cut to its length, a shorter one stays as it is, and no codes are
        decoded that the cut would drop. A motion whose first code is END has no frames. Text past 150 tokens is cut
        off with a warning. With a `seed`, each caption is drawn with it whatever the other captions are; a caption that
        is repeated counts up.
        """
        captions = check_captions(captions)
        if num_return_sequences < 1 or (num_return_sequences > 1 and not do_sample):
            raise ValueError(
                f"num_return_sequences={num_return_sequences}: at least 1, and more than 1 only with do_sample=True "
                "(greedy motions of one caption are all the same)"
            )
        captions = [caption for caption in captions for _ in range(num_return_sequences)]
        steps = self.max_sample_steps if max_sample_steps is None else max_sample_steps
        limits, cuts = [steps] * len(captions), [None] * len(captions)  # type: list[int], list[int | None]
        if lengths is not None:
            lengths = [length for length in lengths for _ in range(num_return_sequences)]
            if len(lengths) != len(captions):
                raise ValueError(
                    f"got {len(lengths) // num_return_sequences} lengths for "
                    f"{len(captions) // num_return_sequences} captions"
                )
            limits, cuts = [min(steps, self.codes_for(n)) for n in lengths], list(lengths)
        sampling = Sampling(do_sample, temperature, top_k, top_p)
        seeds = [row_seed for _, row_seed in seeded_rows(captions, seed)]
        results = self._run(captions, seeds, sampling, limits, [0] * len(captions), cuts, batch_size, iter)
        return [result.motion for result in results]

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        seconds: float | None = None,
        num_motions: int = 1,
        seed: int | None = 0,
        sampling: Sampling | None = None,
        batch_size: int | None = None,
        truncate: bool = False,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> list[GeneratedMotion]:
        """`num_motions` motions for each prompt, prompt by prompt.

        The j-th motion of a prompt is drawn with seed `seed` + j and depends on nothing else: not on other prompts,
        their order or the batch size. A prompt that is listed twice goes on counting.

        `seconds`: exactly so long; the model keeps moving until then (END is not allowed before) and is cut there.
        Without it a motion ends when the model says so, after at most `max_sample_steps` codes. Text longer than the
        model is shown is an error unless `truncate`.
        """
        texts = [prompts] if isinstance(prompts, str) else prompts
        rows = seeded_rows([text for text in texts for _ in range(num_motions)], seed)
        return self.generate_rows(
            rows, seconds=seconds, sampling=sampling, batch_size=batch_size, truncate=truncate, progress=progress
        )

    def generate_rows(
        self,
        rows: Sequence[tuple[str, int | None]],
        *,
        seconds: float | None = None,
        sampling: Sampling | None = None,
        batch_size: int | None = None,
        truncate: bool = False,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    ) -> list[GeneratedMotion]:
        """One motion for each (prompt, seed); see `__call__`."""
        captions = check_captions([text for text, _ in rows])
        if not truncate:
            self.check_prompt_lengths(captions)
        sampling = sampling or self.sampling
        limit, floor, cut = self.max_sample_steps, sampling.min_new_tokens, None
        if seconds is not None:
            frames = self.check_seconds(seconds)
            floor = -(-frames // self.bundle.vqvae.frames_per_code)
            limit, cut = min(self.max_sample_steps, self.codes_for(frames)), frames
        n, seeds = len(rows), [seed for _, seed in rows]
        return self._run(captions, seeds, sampling, [limit] * n, [floor] * n, [cut] * n, batch_size, progress)

    # --- checks, before work is spent -----------------------------------------------------------------------------

    def check_seconds(self, seconds: float) -> int:
        """Frames of `seconds`; an error for what the model cannot make."""
        longest = self.max_sample_steps * self.bundle.vqvae.frames_per_code
        frames = round(seconds * MOTION272.fps)
        if not 1 <= frames <= longest:
            raise ValueError(
                f"a motion of {seconds:g} s cannot be made: this model makes up to {longest / MOTION272.fps:g} s "
                f"({self.max_sample_steps} codes); ask for less, or for several parts"
            )
        return frames

    def check_prompt_lengths(self, prompts: Sequence[str]) -> None:
        """Raise `PromptTooLong` for the first prompt that the model would not see whole."""
        encoder = self._text_encoder
        for prompt, tokens in zip(prompts, encoder.count_tokens(prompts), strict=True):
            if tokens > encoder.max_tokens:
                raise PromptTooLong(
                    f"the prompt {shorten_text(prompt)!r} has {tokens} tokens, the model is shown "
                    f"{encoder.max_tokens}; shorten it, or accept that the rest is ignored (--truncate)"
                )

    # --- the work -------------------------------------------------------------------------------------------------

    def _run(
        self,
        captions: Sequence[str],
        seeds: Sequence[int | None],
        sampling: Sampling,
        limits: Sequence[int],
        floors: Sequence[int],
        cuts: Sequence[int | None],
        batch_size: int | None,
        progress: Callable[[Iterable[Any]], Iterable[Any]],
    ) -> list[GeneratedMotion]:
        stream = self.stream(captions, seeds, sampling, limits, floors, cuts, batch_size)
        made = dict(progress(SizedIterator(stream, len(captions))))
        return [made[i] for i in range(len(captions))]

    @torch.inference_mode()
    def stream(
        self,
        captions: Sequence[str],
        seeds: Sequence[int | None],
        sampling: Sampling,
        limits: Sequence[int],
        floors: Sequence[int],
        cuts: Sequence[int | None],
        batch_size: int | None,
    ) -> Iterator[tuple[int, GeneratedMotion]]:
        """Motions with their numbers, as they get ready; for each caption its seed, most and fewest codes, and cut."""
        if self.bundle.ar is None:
            raise ValueError("this model has no transformer; it can tokenize motions but not make them")
        tokens, shown = self._text_encoder.count_tokens(captions), self._text_encoder.max_tokens
        for caption, count in zip(captions, tokens, strict=True):
            if count > shown:
                warnings.warn(
                    f"{shorten_text(caption)!r} has {count} tokens; the model sees the first {shown}", stacklevel=4
                )
        sampler = CodeSampler(self.bundle, batch_size, free_text_encoder=self.free_text_encoder)
        seen = [min(count, shown) for count in tokens]
        waiting: list[Finished] = []
        for number, done in enumerate(sampler.run(captions, seen, limits, floors, sampling.choice(), seeds), start=1):
            waiting.append(done)
            if len(waiting) < DECODED_TOGETHER and number < len(captions):
                continue
            codes = pad_sequence([done.codes for done in waiting], batch_first=True)
            motions = self._decode(codes, torch.tensor([len(done.codes) for done in waiting]))
            for done, motion in zip(waiting, motions, strict=True):
                i = done.prompt
                yield (
                    i,
                    GeneratedMotion(
                        motion=motion[: cuts[i]],
                        prompt=captions[i],
                        seed=seeds[i],
                        tokens=done.codes.numpy(),
                        ended=done.ended,
                        text_tokens=tokens[i],
                    ),
                )
            waiting = []

    def _decode(self, tokens: torch.Tensor, lengths: torch.Tensor) -> list[Float32]:
        """Motions of the rows, each as if decoded alone."""
        device, lengths = self.bundle.device, lengths.cpu()
        motions: list[Float32] = [np.zeros((0, MOTION272.width), np.float32)] * len(tokens)
        alive = (lengths > 0).nonzero()[:, 0]
        if len(alive):
            kept = lengths[alive].to(device)
            decoded = self.bundle.decode_codes(tokens[alive].to(device), kept).cpu().numpy()
            for row, length, motion in zip(alive.tolist(), kept.tolist(), decoded, strict=True):
                motions[row] = np.ascontiguousarray(motion[: length * self.bundle.vqvae.frames_per_code])
        return motions

    @property
    def _text_encoder(self) -> Any:
        if self.bundle.text_encoder is None:
            raise ValueError("this model was loaded without a text encoder; give text_encoder=... or text_features=...")
        return self.bundle.text_encoder

    def codes_for(self, frames: int) -> int:
        """Codes after which the first `frames` frames no longer change."""
        vqvae = self.bundle.vqvae
        return -(-int(frames) // vqvae.frames_per_code) + vqvae.code_radius


def read_sampling(folder: Path) -> Sampling:
    """How a model folder's generation_config.json says that codes are chosen; greedy without one."""
    path = folder / GENERATION_CONFIG
    if not path.is_file():
        return Sampling()
    return typed(Sampling, json.loads(path.read_text(encoding="utf-8")), path=str(path))
