"""Models: gradient-boosted trees on a table, compared with a plain baseline on days they never saw."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from prefect import task
from prefect.cache_policies import INPUTS, TASK_SOURCE

from agent import checkpoint, lineage, needs
from flows.steps import contract

_POLICY = INPUTS + TASK_SOURCE


def device() -> str:
    """`cuda` on a worker of a pool with real GPUs, else `cpu`."""
    return "cuda" if int(os.environ.get("ORC_WORKER_GPUS", "0")) else "cpu"


def _split(table: str, spec: Mapping[str, Any], start: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows before and from a value of the hold-out column on. Raises ContractError when one side is empty."""
    frame = pd.read_parquet(table).drop(columns=spec.get("ignore", []), errors="ignore")
    column = spec["holdout"]["column"]
    contract.require(table, list(frame.columns), [spec["target"], spec["baseline"], column])
    for name in frame.select_dtypes(["string", "object"]):
        frame[name] = frame[name].astype("category")
    seen, unseen = frame[frame[column] < start], frame[frame[column] >= start]
    if seen.empty or unseen.empty:
        raise contract.ContractError(
            f"table {table}: the hold-out of {column!r} from {start} leaves {len(seen)} rows to learn from and "
            f"{len(unseen)} to test on; both need some"
        )
    return seen, unseen


def _boosted(
    seen: pd.DataFrame, spec: Mapping[str, Any], parameters: Mapping[str, Any], rounds: int, kept: str = ""
) -> Any:
    """A model of so many rounds.

    With a name to keep it under, what is done so far is a checkpoint every `checkpoint_rounds`.
    """
    import xgboost as xgb

    data = xgb.QuantileDMatrix(seen.drop(columns=spec["target"]), seen[spec["target"]], enable_categorical=True)
    said = {
        "objective": "reg:squarederror",
        "tree_method": "hist",
        "device": device(),
        "nthread": int(os.environ.get("OMP_NUM_THREADS", "1")),
        "seed": 0,
        **parameters,
    }
    every = spec.get("checkpoint_rounds", 100)
    if not kept:
        return xgb.train(said, data, num_boost_round=rounds)
    state: dict[str, tuple[int, bytes]] = checkpoint.load(default={}, version="1")
    done, raw = state.get(kept, (0, b""))
    model = xgb.Booster(model_file=bytearray(raw)) if raw else None
    while done < rounds:
        count = min(every, rounds - done)
        model = xgb.train(said, data, num_boost_round=count, xgb_model=model)
        done += count
        checkpoint.save({**state, kept: (done, bytes(model.save_raw()))}, version="1")
    return model


def _predicted(model: Any, frame: pd.DataFrame, spec: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    import xgboost as xgb

    out: np.ndarray[Any, Any] = model.predict(xgb.DMatrix(frame.drop(columns=spec["target"]), enable_categorical=True))
    return out


def scores(truth: Any, guess: Any) -> dict[str, float]:
    """Mean absolute error, root mean squared error and R² (1: perfect, 0: as good as the mean)."""
    error = np.asarray(truth) - np.asarray(guess)
    return {
        "mae": round(float(np.abs(error).mean()), 4),
        "rmse": round(float(np.sqrt((error**2).mean())), 4),
        "r2": round(float(1 - (error**2).sum() / ((truth - np.mean(truth)) ** 2).sum()), 4),
    }


@needs(interruptible=True, gpu="helps", runtime="10s", memory="1 GiB")
@task(cache_policy=_POLICY, task_run_name="try depth {parameters[max_depth]}, rate {parameters[learning_rate]}")
def attempt(table: str, spec: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """Train on the days before validation, score on the validation days. The hold-out days are not touched."""
    before, rest = _split(table, spec, spec["validation_from"])
    validation = rest[rest[spec["holdout"]["column"]] < spec["holdout"]["from"]]
    model = _boosted(before, spec, parameters, spec.get("trial_rounds", spec["rounds"]))
    return {"parameters": parameters, **scores(validation[spec["target"]], _predicted(model, validation, spec))}


@needs(gpu="helps", runtime="30s", memory="1 GiB")
@task(cache_policy=_POLICY, task_run_name="train the model")
def fit(table: str, spec: dict[str, Any], parameters: dict[str, Any], folder: str) -> dict[str, Any]:
    """Train on all days before the hold-out, score on the hold-out beside plain baselines, save both.

    `without` in the spec names sets of columns; a model without them is trained the same way, to show what they gain.
    """
    lineage.reads(table)
    seen, unseen = _split(table, spec, spec["holdout"]["from"])
    model = _boosted(seen, spec, parameters, spec["rounds"], kept="model")
    truth = unseen[spec["target"]].to_numpy()
    guess = _predicted(model, unseen, spec)
    lesser = {}
    for name, columns in spec.get("without", {}).items():
        fewer = [frame.drop(columns=columns, errors="ignore") for frame in (seen, unseen)]
        lesser[f"model: {name}"] = scores(
            truth, _predicted(_boosted(fewer[0], spec, parameters, spec["rounds"], kept=name), fewer[1], spec)
        )
    metrics = {
        "rows": {"trained": len(seen), "held out": len(unseen)},
        "parameters": parameters,
        "rounds": spec["rounds"],
        "device": device(),
        "model": scores(truth, guess),
        **lesser,
        f"baseline: {spec['baseline']}": scores(truth, unseen[spec["baseline"]].to_numpy()),
        "baseline: mean": scores(truth, np.full(len(truth), seen[spec["target"]].mean())),
        "importance": dict(
            sorted(
                ((k, round(float(v), 4)) for k, v in model.get_score(importance_type="gain").items()),
                key=lambda kv: -kv[1],
            )[:8]
        ),
    }
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    model.save_model(into / "model.json.new.json")
    (into / "model.json.new.json").replace(into / "model.json")
    (into / "metrics.json").write_text(json.dumps(metrics, indent=1))
    lineage.writes(str(into / "model.json"), "model")
    return {
        **metrics,
        "path": str(into / "model.json"),
        "chart": chart(truth, guess, unseen[spec["baseline"]].to_numpy(), spec),
    }


def chart(truth: Any, guess: Any, baseline: Any, spec: Mapping[str, Any]) -> str:
    """Error by size of the target, model against baseline, as a data URL of a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    edges = np.quantile(truth, np.linspace(0, 1, 21))
    middle, ours, theirs = [], [], []
    for low, high in itertools.pairwise(edges):
        rows = (truth >= low) & (truth <= high)
        if rows.any():
            middle.append(float(truth[rows].mean()))
            ours.append(float(np.abs(truth[rows] - guess[rows]).mean()))
            theirs.append(float(np.abs(truth[rows] - baseline[rows]).mean()))
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(middle, theirs, "o-", color="#999999", label=f"baseline: {spec['baseline']}")
    axes.plot(middle, ours, "o-", color="#1f6feb", label="model")
    axes.set_xlabel(f"{spec['target']} ({spec.get('unit', '')}), mean of each twentieth of the held-out rows")
    axes.set_ylabel("mean absolute error")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
