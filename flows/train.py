"""A table in, a gradient-boosted model out, with honest hold-out metrics."""

from __future__ import annotations

from typing import Any

from prefect import flow, unmapped
from prefect.artifacts import create_image_artifact

from agent import GovernedTaskRunner, needs
from flows.steps import models


@needs(team="ml")
@flow(task_runner=GovernedTaskRunner)
def train(table: str, model: dict[str, Any], folder: str) -> dict[str, Any]:
    """Try parameters on the validation days, train with the best on all before the hold-out, score on the hold-out.

    Args:
        table: parquet folder.
        model: `target`, `holdout`, `baseline`, `rounds`, `trials`, `validation_from`; `trial_rounds` where fewer are
            enough to compare trials by.
        folder: where the model and its metrics go.
    """
    trials = models.attempt.map(table, unmapped(model), model["trials"]).result()
    best = min(trials, key=lambda trial: trial["rmse"])
    trained: dict[str, Any] = models.fit.submit(table, model, best["parameters"], folder).result()
    create_image_artifact(trained.pop("chart"), description="Error on the held-out days, by size of the target")
    return {**trained, "trials": trials}
