"""What a pipeline makes of prompts before it generates: whether it knows them, how it reads them, whether they fit."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

from hftrainer.pipelines.knowledge import Assessment, Knowledge, UnknownPrompt
from hftrainer.pipelines.prompts import PromptTooLong, PromptWarning, shorten_text


class PromptReading:
    """A part of `TextToMotionPipeline`."""

    knowledge: Knowledge | None = None  # of a model that has files for it

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Text tokens of each caption, before any cut."""
        raise NotImplementedError

    @property
    def max_text_tokens(self) -> int:
        """Text tokens that the model is shown."""
        raise NotImplementedError

    @property
    def max_seconds(self) -> float:
        """The longest motion of one prompt."""
        raise NotImplementedError

    def assess(self, prompt: str) -> Assessment:
        """What the model says of a prompt: whether it knows it, what it is like, how it is read."""
        if self.knowledge is None:
            return Assessment(prompt, prompt)
        found = self.knowledge.assess(prompt)
        if found.seconds is None or found.seconds <= self.max_seconds:
            return found
        most = f"{found.seconds:g} s are longer than a motion of this model, which ends after {self.max_seconds:g} s"
        return dataclasses.replace(found, seconds=self.max_seconds, warnings=(*found.warnings, most))

    def refuse_unknown(self, prompts: Sequence[str]) -> None:
        """Raise `UnknownPrompt` that names the prompts that the model does not know, or that it cannot tell."""
        if self.knowledge is None:
            raise UnknownPrompt(
                "this model cannot tell which prompts it knows (no known.json); do not ask it to refuse"
            )
        found = self._unknown(prompts)
        if found:
            raise UnknownPrompt("\n".join(f"{shorten_text(said.prompt)!r}: {said.warnings[0]}" for said in found))

    def warn_of_unknown(self, prompts: Sequence[str]) -> None:
        """A `PromptWarning` for each prompt that the model does not know."""
        for said in self._unknown(prompts):
            warnings.warn(f"{shorten_text(said.prompt)!r}: {said.warnings[0]}", PromptWarning, stacklevel=3)

    def check_prompt_lengths(self, prompts: Sequence[str]) -> None:
        """Raise `PromptTooLong` for the first prompt that the model would not see completely."""
        shown = [self.assess(prompt).text for prompt in prompts]
        for prompt, tokens in zip(prompts, self.count_tokens(shown), strict=True):
            if tokens > self.max_text_tokens:
                raise PromptTooLong(
                    f"the prompt {shorten_text(prompt)!r} has {tokens} tokens, but the model reads "
                    f"{self.max_text_tokens}; shorten it, or truncate it (--truncate)"
                )

    def warn_of_cut_text(self, captions: Sequence[str], tokens: Sequence[int]) -> None:
        """A warning for each caption of more tokens than the model is shown."""
        for caption, count in zip(captions, tokens, strict=True):
            if count > self.max_text_tokens:
                warnings.warn(
                    f"{shorten_text(caption)!r} has {count} tokens; the model sees the first {self.max_text_tokens}",
                    stacklevel=5,
                )

    def _unknown(self, prompts: Sequence[str]) -> list[Assessment]:
        return [said for said in map(self.assess, dict.fromkeys(prompts)) if said.known is False]
