"""Captions in, motions in physical units out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hftrainer.dtypes import dtype_name
from hftrainer.hub import find_model
from hftrainer.pipelines.base import GeneratedMotion, TextToMotionPipeline
from hftrainer.registry import PIPELINES
from hftrainer.requests import GenerationRequest, SamplingParams
from t2m_gpt.bundle import T2MGPT


@PIPELINES.register("t2m_gpt")
class T2MGPTPipeline(TextToMotionPipeline):
    """Everything but `run` is the framework's."""

    bundle: T2MGPT

    def __init__(self, bundle: T2MGPT, **options: Any):
        longest = bundle.config.gpt.longest if bundle.config.gpt is not None else 0
        super().__init__(bundle, max_sample_steps=longest, **options)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str = "cpu",
        dtype: Any = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> T2MGPTPipeline:
        """Load a folder or a hub repository; `dtype` is the GPT's."""
        hub: Any = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
        folder = find_model(name_or_path, revision=revision, **hub)
        kind = getattr(torch, dtype_name(dtype)) if dtype is not None else None
        return cls(T2MGPT.from_pretrained(folder, device=device, dtype=kind))

    @classmethod
    def load_tokenizer(cls, folder: Path, *, device: str = "cpu") -> Tokenizer:
        """The VQ-VAE of a model's folder."""
        return Tokenizer(T2MGPT.from_pretrained(folder, device=device, text=False))

    @property
    def frames_per_code(self) -> int:
        """Frames that one more code brings."""
        return self.bundle.vqvae.frames_per_code

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Text tokens of each caption."""
        return self._text.count_tokens(captions)

    @property
    def max_text_tokens(self) -> int:
        """Text tokens that the model is shown."""
        return self._text.max_tokens

    @property
    def _text(self) -> Any:
        if self.bundle.gpt is None:
            raise ValueError("this model is a VQ-VAE only; it can tokenize motions but not make them")
        return self.bundle.text_encoder

    def facts(self) -> dict[str, str]:
        """Codebook."""
        vqvae = self.bundle.vqvae
        return {"codebook": f"{vqvae.quantizer.codebook_size} codes of {vqvae.frames_per_code} frames"}

    @torch.inference_mode()
    def run(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParams, *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GeneratedMotion]]:
        """Motions with the positions of their requests."""
        tokens = self.count_tokens([request.caption for request in requests])
        self.warn_of_cut_text([request.caption for request in requests], tokens)
        size = batch_size or 32
        for start in range(0, len(requests), size):
            batch = requests[start : start + size]
            for i, (codes, ended) in enumerate(self._decode_codes(batch, sampling), start=start):
                request, motion = requests[i], np.zeros((0, len(self.bundle.mean)), np.float32)
                if len(codes):
                    motion = self.bundle.denormalize(self.bundle.vqvae.decode(codes[None]))[0].float().cpu().numpy()
                made = GeneratedMotion(
                    motion=motion[: request.frames], prompt=request.caption, seed=request.seed,
                    tokens=codes.cpu().numpy(), ended=ended, text_tokens=tokens[i], representation=self.representation,
                )  # fmt: skip
                yield i, made

    def _decode_codes(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParams
    ) -> list[tuple[Tensor, bool]]:
        """The codes of each request, and whether it ended by itself; rows that have ended are carried along."""
        gpt, end = self.bundle.gpt, self.bundle.vqvae.quantizer.codebook_size
        text = self.bundle.sentence([request.caption for request in requests]).to(gpt.head.weight.dtype)
        limits = [request.max_new_tokens or self.max_sample_steps for request in requests]
        limits = [min(limit, self.max_sample_steps) for limit in limits]
        draws = [torch.Generator().manual_seed(r.seed) if r.seed is not None else torch.Generator() for r in requests]
        for draw, request in zip(draws, requests, strict=True):
            if request.seed is None:
                draw.seed()
        row = torch.zeros(len(requests), 0, dtype=torch.long, device=text.device)
        lengths: list[int | None] = [None] * len(requests)
        for step in range(max(limits)):
            logits = gpt(text, row)[:, -1].float()
            early = [step < max(request.min_new_tokens, 0) for request in requests]
            logits[torch.tensor(early, device=logits.device), end] = -torch.inf
            uniforms = torch.tensor([float(torch.rand((), generator=draw)) for draw in draws], device=logits.device)
            chosen = choose(logits, sampling, uniforms)
            for i in range(len(requests)):
                if lengths[i] is None and int(chosen[i]) == end:
                    lengths[i] = step
            row = torch.cat([row, chosen.clamp(max=end - 1)[:, None]], dim=1)
            if all(length is not None or step + 1 >= limit for length, limit in zip(lengths, limits, strict=True)):
                break
        found = []
        for i, (length, limit) in enumerate(zip(lengths, limits, strict=True)):
            ended = length is not None and length < limit
            found.append((row[i, : min(limit, row.shape[1]) if length is None else min(length, limit)], ended))
        return found


class Tokenizer:
    """Motions to codes and back, each by itself; see `hftrainer.interfaces.MotionTokenizer`."""

    def __init__(self, bundle: T2MGPT):
        self.bundle, self.sha256 = bundle, bundle.tokenizer_sha256 or ""
        self.codebook_size = bundle.vqvae.quantizer.codebook_size
        self.frames_per_code = bundle.vqvae.frames_per_code
        self.representation = bundle.representation

    @torch.inference_mode()
    def encode(self, motions: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Codes of motions (T_i, d)."""
        rows = (torch.from_numpy(np.ascontiguousarray(m, np.float32)).to(self.bundle.mean.device) for m in motions)
        return [self.bundle.vqvae.encode(self.bundle.normalize(row)[None])[0].cpu().numpy() for row in rows]

    @torch.inference_mode()
    def decode(self, codes: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Motions of codes (l_i,)."""
        rows = (torch.from_numpy(np.asarray(row, np.int64)).to(self.bundle.mean.device) for row in codes)
        return [self.bundle.denormalize(self.bundle.vqvae.decode(row[None]))[0].cpu().numpy() for row in rows]


def choose(logits: Tensor, sampling: SamplingParams, uniforms: Tensor) -> Tensor:
    """Ids (b,) of logits (b, n): the likeliest, or drawn: the cumulative distribution inverted at `uniforms` (b,)."""
    if not sampling.do_sample:
        return logits.argmax(dim=-1)
    ordered, ids = torch.sort(logits / sampling.temperature, dim=-1, descending=True)
    probabilities = ordered[:, : sampling.top_k].softmax(dim=-1)
    if sampling.top_p is not None:  # an id stays while the likelier ones do not reach top_p
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    reached = probabilities.cumsum(dim=-1)
    place = (reached < uniforms[:, None] * reached[:, -1:]).sum(dim=-1)
    return ids.gather(1, place.clamp(max=reached.shape[1] - 1)[:, None])[:, 0]
