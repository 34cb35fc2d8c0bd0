"""Judge a model, or motions that are there, by a protocol: the library behind ``hftrainer evaluate run``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hftrainer.apps.eval_dataset import Progress, one_prediction_a_clip, open_dataset, protocol_pairs
from hftrainer.apps.evaluators import identity_of, name_of, resolve_evaluator
from hftrainer.apps.generate_set import Say, SetJob, Settings, Source, generate_set, silent
from hftrainer.evaluation.compare import PER_ITEM, RESULT, items_of, write_items
from hftrainer.evaluation.page import write_page
from hftrainer.evaluation.physical_table import PhysicalTable, physical_table, skeleton_note
from hftrainer.evaluation.predictions import Predictions
from hftrainer.evaluation.protocols import Protocol, load_protocol
from hftrainer.evaluation.protocols.clips import EvaluationSet, MotionStore
from hftrainer.evaluation.protocols.plan import Entry
from hftrainer.evaluation.protocols.run import ProtocolResult, plan_items, run_protocol
from hftrainer.evaluation.report import flat, markdown, terminal
from hftrainer.files import check_writable, write_json, write_text
from hftrainer.motion.representation.convert import makes_up_rotations
from hftrainer.readers import FileError
from hftrainer.version import __version__

PREDICTIONS = "predictions"
_FACTS = (
    "model", "model_hash", "captions", "captions_hash", "sampling", "dtype", "seed", "padded_clips", "padded_frames"
)  # fmt: skip


@dataclass
class Report:
    """`result`: everything that report.json holds; figures by ``report["FID"]`` or ``report["R@1", "real"]``.

    ``str()`` gives the tables of the terminal. `write` leaves files that comparisons and leaderboards read.
    """

    result: dict[str, Any]
    outcome: ProtocolResult
    clips: EvaluationSet
    tables: Mapping[str, PhysicalTable]

    def __getitem__(self, key: str | tuple[str, str]) -> float:
        name, row = (key, "predicted") if isinstance(key, str) else key
        return float(self.result["rows"][row][name]["mean"])

    def __str__(self) -> str:
        return terminal(self.result)

    @property
    def rows(self) -> dict[str, dict[str, dict[str, float]]]:
        """Figures by row ("predicted", "real", "split_half", "random_caption") and metric: mean, ci95, n."""
        rows: dict[str, dict[str, dict[str, float]]] = self.result["rows"]
        return rows

    def flat(self) -> dict[str, float]:
        """``predicted/FID`` and so on, for loggers."""
        return flat(self.result)

    def markdown(self) -> str:
        """The report as a page of Markdown."""
        return markdown(self.result)

    def write(self, folder: str | os.PathLike[str], *, cases: int = 8) -> list[Path]:
        """report.html with the `cases` worst and best retrievals, report.md, report.json, and figures by item."""
        folder = check_writable(folder)
        write_items(folder, self.outcome, self.tables["real"].published, self.tables["predicted"].published)
        write_json(folder / RESULT, self.result)
        write_text(folder / "report.md", self.markdown())
        items = self.outcome.embedded.items

        def real(row: int) -> Any:
            motion = self.clips.real(items[row].id)
            assert motion is not None
            return motion[items[row].start : items[row].start + items[row].frames]

        def predicted(row: int) -> Any:
            assert self.clips.predicted is not None
            return self.clips.predicted(self.clips.named(items[row]))

        write_page(folder / "report.html", self.result, items_of(self.outcome), real, predicted, count=cases)
        return [folder / name for name in ("report.html", "report.md", RESULT, PER_ITEM)]


def evaluate(
    model_or_folder: Any,
    data: str | os.PathLike[str],
    *,
    protocol: str | os.PathLike[str] | Protocol = "hftrainer-v1",
    evaluator: Any,
    overrides: Sequence[str] = (),
    split: str | None = None,
    texts: str | os.PathLike[str] | None = None,
    limit: int = 0,
    out: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    any_rate: bool = False,
    any_values: bool = False,
    device: str = "cpu",
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress = iter,
    progress_of_motions: Progress | None = None,
    say: Say = silent,
) -> Report:
    """Judge a model, or folders of predictions, against the clips of a data set folder.

    `model_or_folder`: a zoo name, artifact folder, hub name or `Source`, whose motions are made in ``out/predictions``
    by `settings` (what is there already stays); or a folder of ``<name>.npy``, or a list of such folders, of which
    further ones are further generations of the same captions. `protocol`: a name, YAML file or object, `overrides` its
    changes. `evaluator`: see `resolve_evaluator`. `limit`: only the first N clips. `any_rate`, `any_values`: skip the
    checks that predictions have the frame rate and the units of the representation.

    Raises before anything is generated or scored for known problems: too few clips for one pool, an
    evaluator of another representation, predictions that are missing, broken or in other units.
    """
    started = time.perf_counter()
    rules = the_protocol(protocol, overrides, split)
    source, folders = source_or_folders(model_or_folder)
    if source is not None and out is None:
        raise ValueError("a model needs --out, the folder for its motions")
    if out is not None:
        check_writable(out)
    clips = open_dataset(data, rules, split=split, texts=texts, limit=limit, any_values=any_values, progress=progress)
    planned = plan_items(rules, clips)
    pairs = [] if source is None else protocol_pairs(rules, planned.kept, source.representation)
    encoder = resolve_evaluator(evaluator, rules, device=device, cache_dir=cache_dir)
    if source is not None:
        about = {"captions": f"{texts or data} by {rules.name}"}
        job = SetJob(source, Path(str(out)) / PREDICTIONS, pairs, settings or Settings(device=device), about=about)
        made = generate_set(job, say=say, progress=progress_of_motions or progress)
        if made.failed and rules.missing == "error":
            name, reason = next(iter(made.failed.items()))
            raise ValueError(
                f"{len(made.failed)} of {made.wanted} motions could not be generated ({name}: "
                f"{reason}); evaluate the others "
                "with missing=drop or missing=failure"
            )
        folders = [job.out]
    predictions = attach(clips, rules, planned.kept, folders, any_rate=any_rate)
    if predictions.get("rotations") == "posed":
        stored = predictions["converted_from"]
        say(f"{stored} holds no rotations: those of {rules.representation} are posed to follow its joints")
    found = run_protocol(
        rules, clips, encoder, planned=planned, any_values=any_values or source is not None, progress=progress
    )
    tables = _physical(rules, clips, found, progress)
    result = {
        **found.as_dict(),
        "evaluator": {"name": name_of(evaluator), "identity": identity_of(encoder, evaluator)},
        "data": {
            "folder": str(data),
            "split": split or rules.ids.split,
            "texts": None if texts is None else str(texts),
        },
        "predictions": predictions,
        "physical": {row: table.summary() for row, table in tables.items()},
        "physical_note": skeleton_note(rules.representation),
        "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(),
    }
    report = Report(result, found, clips, tables)
    return report


def the_protocol(
    protocol: str | os.PathLike[str] | Protocol, overrides: Sequence[str] = (), split: str | None = None
) -> Protocol:
    """A protocol with its overrides; another split is one of them."""
    if isinstance(protocol, Protocol):
        if overrides:
            raise ValueError("overrides need a protocol given by name; change the protocol object itself instead")
        return protocol
    wrong = [text for text in overrides if "=" not in text]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not a protocol override; write field=value, e.g. missing=failure")
    found = load_protocol(protocol, overrides)
    if split and split != found.ids.split:
        found = load_protocol(protocol, [*overrides, f"ids.split={split}"])
    return found


def source_or_folders(given: Any) -> tuple[Source | None, list[Path]]:
    """What `evaluate` was given: a model, or folders of predictions. A folder with weights in it is a model."""
    if isinstance(given, Source):
        return given, []
    if isinstance(given, (list, tuple)):
        if not given:
            raise ValueError("the list of prediction folders is empty")
        return None, [Path(folder) for folder in given]
    path = Path(given)
    is_model = (path / "model_index.json").is_file() or any(path.glob("*.safetensors"))
    if path.is_dir() and not is_model:
        return None, [path]
    return Source(model=str(given)), []


def attach(
    clips: EvaluationSet, protocol: Protocol, kept: Sequence[Entry], folders: Sequence[Path], *, any_rate: bool = False
) -> dict[str, Any]:
    """Give the clips their predictions, after a look at the folders; what is known of them."""
    first = Predictions(folders[0], protocol.representation)
    clips.by_key = not one_prediction_a_clip(protocol) and any(
        first.path(e.key).is_file() for e in kept if e.key != e.id
    )
    wanted = clips.wanted(kept)
    if not any_rate:
        first.check_rate(wanted, protocol.fps)
    further = [Predictions(folder, protocol.representation) for folder in folders[1:]]
    numbers = range(1, first.generations(wanted))
    further += [Predictions(folders[0], protocol.representation, f"_{number}") for number in numbers]
    for one in (first, *further):
        one.cut_converted(wanted)
    if not any(first.path(name).is_file() for name in wanted):
        raise FileError(
            f"{first.root} holds {len(first.files())} motions, none of which has the name of a clip of the split "
            f"({next(iter(sorted(wanted)), '')}.npy, ...)"
        )
    clips.predicted = MotionStore(first)
    clips.others = [MotionStore(one) for one in further]
    manifest = first.manifest()
    facts = {key: manifest[key] for key in _FACTS if key in manifest}
    if first.stored != protocol.representation:
        facts["converted_from"] = first.stored
        facts["rotations"] = "posed" if makes_up_rotations(first.stored, protocol.representation) else "stored"
    return {"name": str(facts.get("model", first.root)), "folders": [str(f) for f in folders], **facts}


def _physical(
    protocol: Protocol, clips: EvaluationSet, found: ProtocolResult, progress: Progress
) -> dict[str, PhysicalTable]:
    """Tables of the real clips and of their predictions, by item; a clip with several captions is measured once."""
    embedded, kind = found.embedded, protocol.representation
    assert embedded.predicted is not None
    assert clips.predicted is not None
    predicted = clips.predicted
    good = {clips.named(item) for item, row in zip(embedded.items, embedded.predicted, strict=True) if row[0] == row[0]}
    names = [clips.named(item) for item in embedded.items]
    return {
        "real": physical_table([item.id for item in embedded.items], clips.real, kind, progress=progress),
        "predicted": physical_table(
            names, lambda name: predicted(name) if name in good else None, kind, progress=progress
        ),
    }


def versions() -> dict[str, str]:
    """Of what computes."""
    import numpy
    import torch

    return {"hftrainer": __version__, "torch": torch.__version__, "numpy": numpy.__version__}
