"""The bodies of requests and answers; what /openapi.json says. Limits that a server sets are checked in `plan`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

Prompt = Annotated[str, StringConstraints(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError("a prompt is empty; describe what the person does")
    if "\0" in text:
        raise ValueError("a prompt contains the character U+0000")
    return text


class TimelinePart(_Body):
    """What is done, and for how long."""

    prompt: Prompt
    seconds: float = Field(gt=0)

    @field_validator("prompt")
    @classmethod
    def _text(cls, text: str) -> str:
        return _check_text(text)


class MotionRequest(_Body):
    """What to make: one of `prompt`, `prompts` and `timeline`.

    `seconds`: exactly so long; without it the model decides. `count`: motions per prompt, with consecutive seeds.
    `strict`: refuse prompts that the model does not know. `stream`: answer with events while the motions are made.
    """

    prompt: Prompt | None = None
    prompts: list[Prompt] | None = Field(None, min_length=1)
    timeline: list[TimelinePart] | None = Field(None, min_length=1)
    seconds: float | None = Field(None, gt=0)
    count: int = Field(1, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    temperature: float | None = None
    top_p: float | None = None
    guidance_scale: float | None = None
    model: str | None = None
    strict: bool = False
    stream: bool = False

    @field_validator("prompt", "prompts")
    @classmethod
    def _texts(cls, value: str | list[str] | None) -> str | list[str] | None:
        for text in [value] if isinstance(value, str) else value or []:
            _check_text(text)
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> MotionRequest:
        given = [name for name in ("prompt", "prompts", "timeline") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of prompt, prompts and timeline, got {' and '.join(given) or 'none'}")
        if self.timeline is not None and self.seconds is not None:
            raise ValueError("each part of a timeline has its own seconds; leave out the request's")
        return self


class Motion(BaseModel):
    """One motion of an answer. `files`: where to get it, by format; files are made when they are first asked for.

    `known`, `similarity` (0 to 1) and `nearest`: whether the model knows such a prompt, where it can tell. `error`: why
    there is no motion.
    """

    id: str
    index: int
    prompt: str
    seed: int
    frames: int = 0
    seconds: float = 0.0
    fps: float
    ended: bool = False
    known: bool | None = None
    similarity: float | None = None
    nearest: list[str] = []
    warnings: list[str] = []
    segments: list[dict[str, Any]] | None = None
    files: dict[str, str] = {}
    error: str | None = None


class Answer(BaseModel):
    """The motions of a request, prompt by prompt."""

    id: str
    model: str
    motions: list[Motion]


class Problem(BaseModel):
    """Why a request was not done."""

    error: str
    message: str


class Accepted(BaseModel):
    """A job that was queued."""

    id: str
    status: str
    url: str


class JobView(BaseModel):
    """A job: ``queued``, ``running``, ``done``, ``failed`` or ``cancelled``."""

    id: str
    status: str
    progress: float
    created: str
    model: str
    request: dict[str, Any]
    answer: Answer | None = None
    error: Problem | None = None


class JobList(BaseModel):
    """Newest first."""

    jobs: list[JobView]


class ModelView(BaseModel):
    """A model that is served. `sampling`: its defaults; null for what it has no setting for."""

    name: str
    title: str
    licence: str
    fps: float
    max_seconds: float
    max_prompt: int
    max_count: int
    sampling: dict[str, float | None]
    examples: list[str]


class ModelList(BaseModel):
    """What is served."""

    default: str
    models: list[ModelView]


class Vocabulary(BaseModel):
    """Verbs that the model was trained on, with numbers of clips; none where the model does not say."""

    verbs: dict[str, int]
