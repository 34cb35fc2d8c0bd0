"""Documentation pages generated from cards, to keep them consistent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from hftrainer.zoo.schema import BYTES_PER_VALUE, ModelCard, Result, memory
from hftrainer.zoo.show import count, size, yes_or_no

_MADE = "<!-- Generated from the model's card by tools/build_model_pages.py; edit the card and run it again. -->"
_HUB = "https://huggingface.co"
_USE = {
    "pipeline": """\
```bash
hftrainer generate "a person walks forward" --model {name} --out out/
```

```python
import hftrainer

pipe = hftrainer.load_pipeline("{name}")
```""",
    "evaluator": """\
```python
from hftrainer.zoo.load import load_evaluator

evaluator = load_evaluator("{name}")
```""",
}


def model_page(card: ModelCard, *, folder: str = "docs/models", label: Callable[[str], str] = str) -> str:
    """A card's page; `folder`: where the page will be, for links; `label`: a metric's name in tables."""
    licence, board = card.licence, card.leaderboard
    aliases = f" Aliases: {', '.join(f'`{alias}`' for alias in card.aliases)}." if card.aliases else ""
    guide = f" More: [{_title(card.guide)}]({_link(card.guide, folder)})." if card.guide else ""
    facts = [
        ("task", card.task), ("representation", card.representation or "none"), ("parameters", count(card.parameters)),
        ("files", _files(card)), ("licence", f"[{licence.name}]({licence.url})" if licence.url else licence.name),
        ("commercial use", yes_or_no(licence.commercial)), ("redistribution", yes_or_no(licence.redistribution)),
        ("attribution", licence.attribution),
        ("test-set leaderboards", f"{'eligible' if board.eligible else 'not eligible'}: {board.reason}"),
    ]  # fmt: skip
    sections = [
        _MADE,
        f"# {card.name}",
        f"{_sentence(card.summary)}{aliases}{guide}",
        *([_sentence(card.notes)] if card.notes else []),
        _USE["pipeline" if card.pipeline else "evaluator"].format(name=card.name),
        _table(("", ""), facts),
        *([f"Licence: {licence.notes}"] if licence.notes else []),
        "## Sizes",
        _sizes(card),
        *(["## Results", *[_result(result, folder, label) for result in card.results]] if card.results else []),
        *(["## Citation", f"```bibtex\n{card.citation.rstrip()}\n```"] if card.citation else []),
    ]
    return "\n\n".join(sections) + "\n"


def zoo_page(cards: Iterable[ModelCard]) -> str:
    """docs/zoo.md: all models in one table, and how their names are used."""
    rows = [
        (
            f"[{card.name}](models/{card.name}.md)", card.task, card.representation or "", count(card.parameters),
            yes_or_no(card.licence.commercial), "yes" if card.leaderboard.eligible else "no", card.summary,
        )
        for card in cards
    ]  # fmt: skip
    head = ("name", "task", "representation", "parameters", "commercial use", "leaderboards", "")
    return f"""{_MADE}

# Model zoo

{_table(head, rows)}

A name, or one of its aliases, can be given wherever a command or `hftrainer.load_pipeline` takes a model. The files are
searched in the folders that the card lists, then on the hub.

```bash
hftrainer zoo list --task text-to-motion
hftrainer zoo show gotozero-7b-train
hftrainer zoo path gotozero-nano
hftrainer zoo pull gotozero-3b-train
```

`pull` downloads into the hub's cache and checks every file against its known hash. A card without a pinned
commit is loaded with a warning; give `revision=` to get the same files every time.

Cards of your own: a folder of YAML files in the environment variable HFTRAINER_ZOO, or a plug-in; see
[extending](extending.md).
"""


def _sizes(card: ModelCard) -> str:
    parts = _table(
        ("part", "parameters", "computes in"),
        [(part.name, f"{part.parameters:,}", part.dtype or "as loaded") for part in card.parts],
    )
    motion = {dtype: memory(card, dtype, motions=1) - memory(card, dtype) for dtype in BYTES_PER_VALUE}
    head = ("loaded as", "weights", *(["per motion in a batch"] if card.cache_values else []))
    rows = [
        (dtype, size(memory(card, dtype)), *([size(motion[dtype])] if card.cache_values else []))
        for dtype in BYTES_PER_VALUE
    ]
    return f"{parts}\n\nMemory, excluding activations, prepared copies and libraries:\n\n{_table(head, rows)}"


def _result(result: Result, folder: str, label: Callable[[str], str]) -> str:
    clips = f", {result.clips} clips" if result.clips else ""
    local = result.source.startswith("docs/")
    source = f"[{_title(result.source)}]({_link(result.source, folder)})" if local else result.source
    rows = [
        (label(name), f"{value:g}", *([_number(result.real.get(name))] if result.real else []))
        for name, value in result.values.items()
    ]
    head = ("metric", "value", *(["real clips"] if result.real else []))
    notes = f"\n\n{result.notes}" if result.notes else ""
    title = "physical metrics" if result.protocol == "physical" else f"protocol `{result.protocol}`"
    return f"**{title}**: {result.origin}{clips}. Source: {source}.{notes}\n\n{_table(head, rows)}"


def _files(card: ModelCard) -> str:
    places = [f"`{folder}`" for folder in card.folders]
    if card.hub is not None:
        pinned = f"commit {card.hub.revision}" if card.hub.revision else "not pinned"
        places.append(f"[{card.hub.repository}]({_HUB}/{card.hub.repository}) ({pinned})")
    return ", ".join(places)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _link(path: str, folder: str) -> str:
    return path if "://" in path else PurePosixPath(os.path.relpath(path, folder)).as_posix()


def _title(path: str) -> str:
    return path if "://" in path else PurePosixPath(path).stem.replace("_", " ")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if text.endswith(".") else f"{text}."
