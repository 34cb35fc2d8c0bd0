"""``hftrainer data vocabulary``: what a model knows, from the captions that it was trained on, into its folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hftrainer.data.folder import DatasetFolder
from hftrainer.data.prepare.english_words import WORDNET, read_wordnet
from hftrainer.data.prepare.labelled_prompts import CALIBRATION, read_labelled
from hftrainer.english import lemmas, normalized
from hftrainer.files import check_writable, replaced_folder
from hftrainer.manifest import write_manifest
from hftrainer.pipelines.knowledge import features
from hftrainer.pipelines.knowledge.calibrate import fit_judgement
from hftrainer.pipelines.knowledge.examples import Examples, evenly
from hftrainer.pipelines.knowledge.files import EXAMPLES, KNOWN, VOCABULARY, Judgement, Known, Reading, write_known
from hftrainer.pipelines.knowledge.wordlist import WordList, head_words
from hftrainer.readers import FileError
from hftrainer.zoo.load import load_pipeline, locate

Say = Callable[[str], None]
_FOLDS = 4
_TESTED = 300  # captions of a fold


@dataclass(frozen=True)
class VocabularySettings:
    """`examples`: how many captions are kept as embeddings; `captions`: how many are looked at, drawn at random where
    there are more. `false_alarms`: the share of captions left out of a fold that may be doubted. `absurd`: a file of
    prompts to doubt; None: the shipped one."""

    split: str = "train"
    wordnet: str = WORDNET
    absurd: Path | None = None
    examples: int = 2048
    captions: int = 12_000
    false_alarms: float = 0.03
    reading: Reading = field(default_factory=Reading)
    seed: int = 0


@dataclass
class Captions:
    """Distinct normalized captions: `texts`, with the `action` and the `group` of the clips that they are of.

    Clips with the same label, or else the same captions, are one group.
    """

    texts: list[str]
    action: NDArray[np.int64]
    group: NDArray[np.int64]
    names: list[str]
    clips: dict[str, dict[str, int]]  # actions and verbs, with how many clips have them


def learn_vocabulary(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    settings: VocabularySettings = VocabularySettings(),
    *,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Write vocabulary.json, known.json and known.safetensors into the model's folder; the calibration's figures."""
    folder, _ = locate(model)
    check_writable(folder)
    english = read_wordnet(settings.wordnet)
    background = WordList({}, set(), english.levels, english.verbs, english.animals)
    captions = read_captions(DatasetFolder(data), settings, background)
    absurd = [normalized(row.prompt) for row in read_labelled(settings.absurd or CALIBRATION)]
    absurd = [text for text in dict.fromkeys(absurd) if text]
    say(f"{len(captions.texts)} captions of {len(captions.names)} actions, {len(absurd)} prompts to doubt")
    pipeline = load_pipeline(model)
    embedded = pipeline.embed_texts(captions.texts)
    strange = pipeline.embed_texts(absurd)
    say("captions are embedded; calibrating")
    judgement, figures = _calibrate(captions, embedded, absurd, strange, background, settings)
    words = WordList.of_captions(captions.texts, background)
    kept = evenly(captions.group, settings.examples, settings.seed)
    examples = Examples.of_captions(embedded, captions.action, captions.names, kept=kept)
    examples.clips = captions.clips["actions"]
    known = Known(words, judgement, settings.reading, captions.clips, figures)
    with replaced_folder(folder) as staging:  # with some of the files only, the model could not be loaded
        write_known(staging, known, examples)
        write_manifest(staging)
    size = sum((folder / name).stat().st_size for name in (VOCABULARY, KNOWN, EXAMPLES))
    return {**figures, "bytes": size, "folder": str(folder)}


def read_captions(dataset: DatasetFolder, settings: VocabularySettings, background: WordList) -> Captions:
    """The captions of a split, and clips by action (labels.json: "action", or "content") and by verb."""
    labels = dataset.labels()
    texts: dict[str, tuple[str, int]] = {}
    groups: dict[str, int] = {}
    actions: Counter[str] = Counter()
    verbs: Counter[str] = Counter()
    for name in dataset.names(settings.split):
        found = list(dict.fromkeys(t for c in dataset.captions(name) if (t := normalized(c.text))))
        if not found:
            continue
        action = str(labels.get(name, {}).get("action") or labels.get(name, {}).get("content") or "")
        told_apart = str(labels.get(name, {}).get("label") or sorted(found))
        group = groups.setdefault(told_apart, len(groups))
        actions.update([action] if action else [])
        verbs.update(set(_verbs(found, background)))
        for text in found:
            texts.setdefault(text, (action, group))
    if not texts:
        raise FileError(f"{dataset.root}: no clip of the split {settings.split!r} has a caption")
    kept = sorted(texts)
    if len(kept) > settings.captions:
        rng = np.random.default_rng(settings.seed)
        kept = [kept[i] for i in sorted(rng.choice(len(kept), settings.captions, replace=False))]
    names = sorted(actions)
    place = {name: i for i, name in enumerate(names)}
    return Captions(
        kept,
        np.array([place.get(texts[text][0], -1) for text in kept]),
        np.array([texts[text][1] for text in kept]),
        names,
        {"actions": _by_count(actions), "verbs": _by_count(verbs)},
    )


def _verbs(captions: Sequence[str], background: WordList) -> Iterator[str]:
    """The verbs of sentences, in their base form, where they stand at the head of a clause."""
    for caption in captions:
        for word in head_words(caption):
            base = next((lemma for lemma in lemmas(word) if lemma in background.verbs), None)
            if base is not None:
                yield base


def _calibrate(
    captions: Captions,
    embedded: NDArray[np.float32],
    absurd: Sequence[str],
    strange: NDArray[np.float32],
    background: WordList,
    settings: VocabularySettings,
) -> tuple[Judgement, dict[str, Any]]:
    """Fit on captions that a fold's words and examples were made without: of whole groups, and single sentences."""
    rng = np.random.default_rng(settings.seed)
    rows: list[list[float]] = []
    kinds: list[str] = []
    for kind, keys in (("new clips", captions.group), ("new sentences", np.arange(len(captions.texts)))):
        fold_of = rng.integers(_FOLDS, size=int(keys.max()) + 1)[keys]
        for fold in range(_FOLDS):
            inside = np.flatnonzero(fold_of != fold)
            outside = rng.permutation(np.flatnonzero(fold_of == fold))[:_TESTED]
            if not len(inside) or not len(outside):
                continue
            words = WordList.of_captions([captions.texts[i] for i in inside], background)
            kept = evenly(captions.group[inside], settings.examples, settings.seed)
            part = Examples.of_captions(embedded[inside], captions.action[inside], captions.names, kept=kept)
            part_known = Known(words, Judgement())
            rows += [features(captions.texts[i], embedded[i], part_known, part) for i in outside]
            kinds += [kind] * len(outside)
            chosen = range(fold, len(absurd), _FOLDS)
            rows += [features(absurd[i], strange[i], part_known, part) for i in chosen]
            kinds += ["absurd"] * len(chosen)
    table, kind_of = np.array(rows), np.array(kinds)
    judgement = fit_judgement(table, kind_of != "absurd", false_alarms=settings.false_alarms)
    doubted = np.array([judgement.score(row.tolist()) <= 0 for row in table])
    return judgement, {
        "captions": len(captions.texts),
        "examples": min(settings.examples, len(captions.texts)),
        "absurd prompts": len(absurd),
        "absurd prompts caught": _rate(doubted, kind_of == "absurd"),
        "false alarms, new sentences of known clips": _rate(doubted, kind_of == "new sentences"),
        "false alarms, clips left out": _rate(doubted, kind_of == "new clips"),
    }


def _rate(flags: NDArray[np.bool_], chosen: NDArray[np.bool_]) -> float | None:
    return round(float(flags[chosen].mean()), 4) if chosen.any() else None


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
