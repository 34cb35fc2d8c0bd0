"""An evaluation in Weights & Biases."""

from __future__ import annotations

from typing import Any

from hftrainer.apps.evaluate import Report
from hftrainer.extras import need


def log_report(project: str, report: Report) -> None:
    """One run with every figure in its summary, under the names that tables and JSON have."""
    wandb: Any = need("wandb", "logging to Weights & Biases")
    result = report.result
    name = f"{result['predictions']['name']} {result['protocol']['name']}"
    config = {key: result[key] for key in ("protocol", "evaluator", "data", "predictions")}
    with wandb.init(project=project, name=name, job_type="evaluation", config=config) as run:
        run.summary.update(report.flat())
