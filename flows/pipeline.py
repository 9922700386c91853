"""The main job: preprocess, then train."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import yaml
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from agent import needs
from flows.preprocess import preprocess
from flows.train import train


@needs(deadline="30 min")
@flow
def pipeline(spec: str = "deployments/nycflights.yaml", folder: str | None = None) -> dict[str, Any]:
    """Run a pipeline file: `sources`, `table`, `model`.

    Args:
        spec: path of the file.
        folder: where data and model go; by default one under ORC_HOME for each content of the file.
    """
    text = Path(spec).read_text(encoding="utf-8")
    said = yaml.safe_load(text)
    into = folder or str(Path(os.environ.get("ORC_HOME", ".orc")).absolute() / "data" / hashlib.sha256(text.encode()).hexdigest()[:12])
    table = preprocess(sources=said["sources"], table=said["table"], folder=into)
    model = train(table=table["path"], model=said["model"], folder=into)
    create_markdown_artifact(_told(table, model, said["model"]), description="What the pipeline made")
    return {"table": table["path"], "rows": table["rows"], "model": model["path"], "metrics": model["model"]}


def _told(table: dict[str, Any], model: dict[str, Any], spec: dict[str, Any]) -> str:
    names = [name for name in model if name == "model" or name.startswith("baseline")]
    rows = "\n".join(f"| {name} | {model[name]['mae']} | {model[name]['rmse']} | {model[name]['r2']} |" for name in names)
    return (
        f"# {spec['target']}\n\n{table['rows']:,} rows; {model['rows']['trained']:,} learned from, {model['rows']['held out']:,} held out.\n\n"
        f"| on the held-out rows, {spec.get('unit', '')} | mean absolute error | RMSE | R² |\n|---|--:|--:|--:|\n{rows}\n\n"
        f"Parameters {model['parameters']}, {model['rounds']} rounds, on {model['device']}. Model: `{model['path']}`\n"
    )
