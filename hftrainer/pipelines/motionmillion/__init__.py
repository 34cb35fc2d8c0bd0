"""Go to Zero as a pipeline: captions in, motions in physical units out."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from hftrainer.hub import find_model
from hftrainer.interfaces import MotionTokenizer
from hftrainer.models.motion.motionmillion import convert
from hftrainer.models.motion.motionmillion.artifact import fetch
from hftrainer.models.motion.motionmillion.bundle import MotionMillionBundle, check_dtype
from hftrainer.models.motion.motionmillion.engine.inference import inference_model
from hftrainer.models.motion.motionmillion.engine.prompts import PromptRunner
from hftrainer.models.motion.motionmillion.engine.scheduler import Completion
from hftrainer.models.motion.motionmillion.files import CONFIG
from hftrainer.models.motion.motionmillion.hf_llama import export_llama
from hftrainer.models.motion.motionmillion.quant_check import prepare_texts, quant_check
from hftrainer.models.motion.motionmillion.rope_check import rope_check
from hftrainer.models.motion.motionmillion.tokenizer import MotionTokenizer as Tokenizer
from hftrainer.models.motion.motionmillion.tokenizer import load_tokenizer
from hftrainer.models.text_encoder_base import kind_of, spell_kind
from hftrainer.pipelines.base import Float32, GeneratedMotion, read_sampling
from hftrainer.pipelines.joining import JoinedMotions
from hftrainer.pipelines.knowledge import load_knowledge
from hftrainer.pipelines.motionmillion.joining import JoinedRows
from hftrainer.pipelines.motionmillion.streaming import StreamingPipeline
from hftrainer.registry import PIPELINES
from hftrainer.requests import GenerationRequest, SamplingParams
from hftrainer.timing import timed

_SPLITS = {
    "train": "the train split",
    "all": "all splits, test included: not eligible for test-set leaderboards",
    "unknown": "unknown splits (not recorded)",
}
DECODED_TOGETHER = 32
_FETCHED_BY = ("revision", "cache_dir", "local_files_only", "token", "text_encoder", "text_features", "load_ar")


@PIPELINES.register("motionmillion")
class MotionMillionPipeline(StreamingPipeline):
    """Text encoder, transformer, tokenizer decoder, statistics; all of them in `bundle`.

    `sampling` is what calls use unless they say otherwise: the model's generation_config.json, or greedy.
    `free_text_encoder`: encode all prompts of a call first, then release the encoder's weights (4.9 GB for
    Flan-T5-XL) before the transformer runs; the next call loads them again.
    """

    artifact_names: ClassVar[tuple[str, ...]] = ("MotionMillionPipeline",)
    artifact_files: ClassVar[tuple[str, ...]] = (CONFIG,)  # by which a folder without model_index.json is recognized
    bundle: MotionMillionBundle

    def __init__(
        self,
        bundle: MotionMillionBundle,
        *,
        device: str | torch.device | None = None,
        max_sample_steps: int = 150,
        sampling: SamplingParams | None = None,
        free_text_encoder: bool = False,
    ):
        bundle = bundle.to(device) if device is not None else bundle
        super().__init__(bundle, max_sample_steps=max_sample_steps, sampling=sampling)
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
        compile: bool = False,
        **options: Any,
    ) -> MotionMillionPipeline:
        """Load an artifact folder or a hub repository.

        `dtype` is the transformer's; the tokenizer always computes in float32. `compile`: see `compile_steps`.
        `options` (text_encoder, text_features, device_map, quantize, adapter, verify) are those of
        `MotionMillionBundle.from_pretrained`.
        """
        hub: dict[str, Any] = {"cache_dir": cache_dir, "local_files_only": local_files_only, "token": token}
        folder = cls.fetch(name_or_path, revision=revision, **options, **hub)
        bundle = MotionMillionBundle.from_pretrained(
            folder, device=device, dtype=dtype, text_on_demand=free_text_encoder, **options, **hub
        )
        made = cls(
            bundle,
            max_sample_steps=max_sample_steps,
            sampling=read_sampling(folder),
            free_text_encoder=free_text_encoder,
        )
        own_text = options.get("text_encoder", "artifact") == "artifact" and options.get("text_features") is None
        if own_text and bundle.text_encoder is not None:  # embeddings of another encoder could not be compared
            made.knowledge = load_knowledge(folder, made.embed_texts)
        if compile:
            made.compile_steps()
        return made

    def compile_steps(self) -> None:
        """Fuse the kernels of decoding steps by torch's compiler, on CUDA: minutes for the first steps of each number
        of rows, then fewer kernels (401 instead of 1,073 for 7B). Codes stay the same. Where steps cannot be compiled
        a warning says so and they run as they are."""
        if self.bundle.ar is None:
            raise ValueError("this model has no transformer, so there are no steps to compile")
        if self.bundle.ar.lm_head.weight.device.type == "cuda":
            self.bundle.ar.compile_steps = True
        else:
            warnings.warn("steps are compiled on CUDA devices only; on a CPU they run as they are", stacklevel=2)

    @staticmethod
    def fetch(name_or_path: str | os.PathLike[str], **options: Any) -> Path:
        """The folder of an artifact; from the hub, without parts that options of `from_pretrained` leave out."""
        return fetch(name_or_path, **{key: value for key, value in options.items() if key in _FETCHED_BY})

    released_files: ClassVar[tuple[str, ...]] = ("fsq", "ar", "text_model", "mean", "std")
    released_weights: ClassVar[tuple[str, ...]] = ("fsq", "ar")

    @classmethod
    def from_released(
        cls,
        files: Mapping[str, Any],
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        free_text_encoder: bool = False,
    ) -> MotionMillionPipeline:
        """Read the authors' files: `fsq` and `ar` in any form, `mean` and `std`, and `text_model`, a T5 folder or name.

        `dtype`: of the transformer.
        """
        bundle = MotionMillionBundle(
            files["fsq"], files["ar"], files.get("text_model"), mean_path=files.get("mean"), std_path=files.get("std"),
            device=device, dtype=check_dtype(dtype),
        )  # fmt: skip
        return cls(bundle, free_text_encoder=free_text_encoder)

    @staticmethod
    def convert_released(
        out: Path,
        files: Mapping[str, Any],
        *,
        dtype: str | None = None,
        verify: bool = False,
        say: Callable[[str], None] = lambda line: None,
        **options: Any,
    ) -> None:
        """The authors' files to an artifact folder; see `hftrainer.models.motion.motionmillion.convert`."""
        text = None if files["text_encoder"] is None else find_model(files["text_encoder"])
        weights = {name: files[name] for name in ("ar", "fsq", "mean", "std")}
        job = convert.Conversion(out=out, text_encoder=text, dtype=check_dtype(dtype), **weights, **options)
        convert.convert(job, say=say)
        if verify:
            count = convert.compare_tensors(job, say=say)
            convert.compare_outputs(job, say=say)
            say(f"verified: {count} tensors and the outputs are the source's")
        splits = convert.training_splits(job)
        if splits == "all":
            say("trained on all splits: not eligible for test-set leaderboards; the card says so")
        elif splits == "unknown":
            say("trained on unknown splits: marked as not eligible for leaderboards; if known, say --trained_on train")

    def export_llama(self, out: Path) -> None:
        """Write the transformer as transformers' LlamaForCausalLM."""
        if self.bundle.ar is None:
            raise ValueError("this model has no transformer")
        export_llama(self.bundle.ar, out)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model; see `MotionMillionBundle.push_to_hub`."""
        return self.bundle.push_to_hub(repo_id, **options)

    # --- what the model says --------------------------------------------------------------------------------------

    @property
    def frames_per_code(self) -> int:
        """Frames that one more code brings."""
        return self.bundle.vqvae.frames_per_code

    @property
    def lookahead_codes(self) -> int:
        """Codes behind a frame that its decoding depends on."""
        return self.bundle.vqvae.code_radius

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Text tokens of each caption, the end-of-text token included, before any cut."""
        counts: list[int] = self._text_encoder.count_tokens(captions)
        return counts

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 128) -> Float32:
        """Unit vectors (n, c): means of the text encoder's features."""
        out: list[Float32] = [np.zeros(0, np.float32)] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            encoded = self.bundle.encode_text([texts[i] for i in rows])
            mean = encoded.features.float().sum(dim=1) / encoded.mask.sum(dim=1, keepdim=True)
            for i, vector in zip(rows, torch.nn.functional.normalize(mean, dim=-1).cpu().numpy(), strict=True):
                out[i] = vector
        return np.stack(out)

    @property
    def max_text_tokens(self) -> int:
        """Text tokens that the model is shown."""
        return int(self._text_encoder.max_tokens)

    def facts(self) -> dict[str, str]:
        """Codebook, text encoder, and which splits the model was trained on."""
        tokenizer, text = self.bundle.vqvae, self.bundle.config.text_encoder
        return {
            "codebook": f"{tokenizer.codebook_size} codes of {tokenizer.frames_per_code} frames",
            **({"text": spell_kind(kind_of(text.name, text.config))} if text is not None else {}),
            "trained on": _SPLITS[self.bundle.config.training_splits],
        }

    @classmethod
    def load_tokenizer(cls, folder: Path, *, device: str = "cpu") -> MotionTokenizer:
        """The tokenizer of an artifact folder."""
        return load_tokenizer(folder, device=device)

    def rope_check(self, read: Callable[[MotionTokenizer, int], Iterable[tuple[str, NDArray[np.int64]]]]) -> list[str]:
        """Which rotary table the weights want; see `rope_check`.

        `read` gives captions with codes of this tokenizer, at most so many of each motion.
        """
        if self.bundle.ar is None:
            raise ValueError("this model has no transformer")
        longest = self.bundle.ar.config.block_size - self.max_text_tokens - 1
        tokenizer = Tokenizer(self.bundle, self.bundle.tokenizer_sha256 or "")
        return rope_check(self.bundle, read(tokenizer, longest)).lines()

    def quant_check(
        self, folder: Path, kind: str, prompts: Sequence[str], codes: int, dtype: str | None = None
    ) -> list[str]:
        """What packing the transformer's matrices costs; see `quant_check`. It is loaded twice, once packed."""
        texts = prepare_texts(self.bundle, prompts)
        missing = self.bundle.text_encoder is None
        notes = ["the model has no text encoder: random features are used"] if missing else []
        device = self.bundle.device

        def load(quantize: str | None) -> Any:
            options: dict[str, Any] = {"device": device, "dtype": dtype, "quantize": quantize}
            return MotionMillionBundle.from_pretrained(folder, text_encoder=None, **options).ar

        return [*notes, *quant_check(lambda: load(None), lambda: load(kind), kind, texts, codes=codes).lines()]

    # --- the work -------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def run(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParams, *, batch_size: int | None = None
    ) -> Iterator[tuple[int, GeneratedMotion]]:
        """Motions with the positions of their requests, as they get ready."""
        ar = self.bundle.ar
        if ar is None:
            raise ValueError("this model has no transformer; it can tokenize motions but not generate them")
        said = [self.assess(request.caption) for request in requests]
        tokens = self.count_tokens([one.text for one in said])
        self.warn_of_cut_text([one.text for one in said], tokens)
        if ar.prepared is None and not self.free_text_encoder:  # else the encoder leaves memory first
            with timed("prepared weights"):
                inference_model(ar)
        runner = PromptRunner(ar, self._text_encoder, batch_size, free_encoder=self.free_text_encoder)
        bounded = [self._bounded(request, one.text) for request, one in zip(requests, said, strict=True)]
        waiting: list[Completion] = []
        together = 1 if self.bundle.device.type == "cpu" else DECODED_TOGETHER  # a CPU decodes one by one anyway
        shown = self._text_encoder.positions(tokens)
        for number, done in enumerate(runner.run(bounded, shown, sampling), start=1):
            waiting.append(done)
            if len(waiting) < together and number < len(requests):
                continue
            codes = pad_sequence([done.codes for done in waiting], batch_first=True)
            motions = self._decode(codes, torch.tensor([len(done.codes) for done in waiting]))
            for done, motion in zip(waiting, motions, strict=True):
                request = requests[done.prompt]
                yield (
                    done.prompt,
                    GeneratedMotion(
                        motion=motion[: request.frames],
                        prompt=request.caption,
                        seed=request.seed,
                        tokens=done.codes.numpy(),
                        ended=done.ended,
                        text_tokens=tokens[done.prompt],
                        representation=self.representation,
                        body=self.bundle.body,
                        **said[done.prompt].fields(),
                    ),
                )
            waiting = []

    def joining(self, rows: int | None = None) -> JoinedMotions:
        """Motions that join a batch of `rows` (None: as many as are worthwhile and fit) while it is decoded."""
        return JoinedRows(self, rows)

    def _bounded(self, request: GenerationRequest, text: str) -> GenerationRequest:
        """The request for what the model is shown of its caption, its most codes said, and no more wanted than that."""
        most = self.max_sample_steps if request.max_new_tokens is None else request.max_new_tokens
        fewest = min(request.min_new_tokens, most)
        return dataclasses.replace(request, caption=text, max_new_tokens=most, min_new_tokens=fewest)

    def _decode(self, tokens: torch.Tensor, lengths: torch.Tensor) -> list[Float32]:
        """Motions of the rows, each as if decoded by itself."""
        device, lengths = self.bundle.device, lengths.cpu()
        motions: list[Float32] = [np.zeros((0, self.motion_format.width), np.float32)] * len(tokens)
        if device.type == "cpu":  # no slower one by one, and then the last bit does not depend on what is beside
            for row, length in enumerate(lengths.tolist()):
                if length:
                    decoded = self.bundle.decode_codes(tokens[row : row + 1, :length])[0].numpy()
                    motions[row] = np.ascontiguousarray(decoded)
            return motions
        alive = (lengths > 0).nonzero()[:, 0]
        if len(alive):
            kept = lengths[alive].to(device)
            decoded = self.bundle.decode_codes(tokens[alive].to(device), kept).cpu().numpy()
            for row, length, motion in zip(alive.tolist(), kept.tolist(), decoded, strict=True):
                motions[row] = np.ascontiguousarray(motion[: length * self.frames_per_code])
        return motions

    @property
    def _text_encoder(self) -> Any:
        if self.bundle.text_encoder is None:
            raise ValueError("this model was loaded without a text encoder; give text_encoder=... or text_features=...")
        return self.bundle.text_encoder
