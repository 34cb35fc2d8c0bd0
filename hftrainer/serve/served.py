"""The models of a server: what each can do, and the worker that does it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from hftrainer.hub import ModelNotFound
from hftrainer.serve.metrics import Metrics
from hftrainer.serve.refusal import Refusal
from hftrainer.serve.settings import Settings
from hftrainer.serve.worker import Worker
from hftrainer.zoo.load import card_of, load_pipeline
from hftrainer.zoo.schema import ModelCard

EXAMPLES = (
    "a person walks forward", "someone runs", "a person waves with the right hand", "a person takes a bow",
    "an exhausted person walks ahead", "someone does jumping jacks", "a man picks up a box", "a person dances",
)  # fmt: skip
SHOWN = 5  # examples


class Served:
    """A model, under the name by which requests ask for it."""

    def __init__(self, name: str, pipeline: Any, settings: Settings, metrics: Metrics, card: ModelCard | None = None):
        self.name, self.pipeline, self.settings, self.card = name, pipeline, settings, card
        self.reading = threading.Lock()  # what a pipeline remembers of prompts is not for several threads at once
        self.examples = [text for text in EXAMPLES if pipeline.assess(text).known is not False][:SHOWN]
        self.worker = Worker(name, pipeline, settings, metrics)

    @property
    def max_seconds(self) -> float:
        """Of one motion of one prompt."""
        return float(min(self.settings.max_seconds, self.pipeline.max_seconds))

    def view(self) -> dict[str, Any]:
        """What /v1/models says of it."""
        sampling, card = self.pipeline.sampling, self.card
        return {
            "name": self.name,
            "title": card.summary if card is not None else self.name,
            "licence": card.licence.name if card is not None else "not stated",
            "fps": self.pipeline.motion_format.fps,
            "max_seconds": self.max_seconds,
            "max_prompt": self.settings.max_prompt,
            "max_count": self.settings.max_count,
            "sampling": {
                "temperature": sampling.temperature if sampling.do_sample else None,
                "top_p": (1.0 if sampling.top_p is None else sampling.top_p) if sampling.do_sample else None,
                "guidance_scale": sampling.guidance_scale,
            },
            "examples": self.examples,
        }

    def vocabulary(self) -> dict[str, int]:
        """Verbs that it was trained on, with numbers of clips; none if it does not say."""
        knowledge = self.pipeline.knowledge
        return {} if knowledge is None else dict(knowledge.known.groups.get("verbs", {}))


class Models:
    """What is served, by name; the first is the default."""

    def __init__(self, served: dict[str, Served]):
        self._served = served

    @classmethod
    def load(cls, settings: Settings, metrics: Metrics, pipelines: dict[str, Any] | None = None) -> Models:
        """Load the models of the settings; `pipelines`: those that are in memory, instead."""
        if pipelines is not None:
            return cls({name: Served(name, pipe, settings, metrics) for name, pipe in pipelines.items()})
        served: dict[str, Served] = {}
        for given in settings.models:
            card = card_of(given)
            name = card.name if card is not None else _folder_name(given)
            if name in served:
                raise ValueError(f"two of the models are called {name}; requests could not tell them apart")
            served[name] = Served(name, load_pipeline(given, **settings.load), settings, metrics, card)
        return cls(served)

    @property
    def default(self) -> Served:
        """What a request gets that names no model."""
        return next(iter(self._served.values()))

    def __iter__(self) -> Any:
        return iter(self._served.values())

    def get(self, name: str | None) -> Served:
        """A model by name; a `Refusal` if it is not served."""
        if name is None:
            return self.default
        if name not in self._served:
            raise Refusal(404, "unknown_model", f"no such model is served here; there are {', '.join(self._served)}")
        return self._served[name]

    def body_of(self, name: str) -> Any:
        """The body that motions of a model are shown on; a `Refusal` if it cannot be found."""
        served = self._served.get(name)
        if served is not None:
            return served.pipeline.bundle.body
        from hftrainer.motion.body import body_of
        from hftrainer.zoo.load import locate

        try:
            return body_of(locate(name, local_files_only=True)[0])
        except (ValueError, OSError, ModelNotFound) as error:
            raise Refusal(
                503, "unknown_model", f"this motion was made by {name}, which is not served now; serve it to get files"
            ) from error


def _folder_name(given: str | os.PathLike[str]) -> str:
    """``runs/walker/best`` is "walker-best"."""
    return "-".join(part for part in Path(given).parts[-2:] if part not in ("/", "..", "."))
