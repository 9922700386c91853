"""The main job: preprocess, enrich, train."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from prefect import flow
from prefect.artifacts import create_markdown_artifact

from agent import needs
from flows.enrich import enrich
from flows.preprocess import preprocess
from flows.train import train

#: marks the folder of a run that finished
_DONE = "finished"


@needs(deadline="30 min")
@flow
def pipeline(spec: str = "deployments/nycflights.yaml", folder: str | None = None) -> dict[str, Any]:
    """Run a pipeline file: `sources`, `table`, `graph` where there is one, `model`.

    Args:
        spec: path of the file.
        folder: where data and model go. By default one under ORC_HOME for this content of the file: that of the last
            run when it did not finish, so that its stored results are taken up, else a new one.
    """
    text = Path(spec).read_text(encoding="utf-8")
    said = yaml.safe_load(text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    home = Path(os.environ.get("ORC_HOME", ".orc")).absolute() / "data" / digest
    into = folder or str(_unfinished(home))
    table = preprocess(sources=said["sources"], table=said["table"], folder=into)
    path, graph = table["path"], None
    if "graph" in said:
        wanted = said["graph"]
        enriched = enrich(
            tables=table["sources"], mapping=wanted["mapping"], folder=into, table=path, features=wanted.get("features")
        )
        path, graph = enriched["table"], enriched["load"]
    model = train(table=path, model=said["model"], folder=into)
    create_markdown_artifact(_told(table, model, said["model"]), description="What the pipeline made")
    (Path(into) / _DONE).touch()
    return {"table": path, "rows": table["rows"], "graph": graph, "model": model["path"], "metrics": model["model"]}


def _unfinished(home: Path) -> Path:
    """The newest folder without the mark of a finished run, or a new one; of the finished, the newest is kept."""
    numbers = sorted(int(folder.name) for folder in home.glob("[0-9]*")) if home.exists() else []
    for number in numbers[:-1]:
        shutil.rmtree(home / str(number), ignore_errors=True)
    last = numbers[-1] if numbers else 0
    into = home / str(last if numbers and not (home / str(last) / _DONE).exists() else last + 1)
    into.mkdir(parents=True, exist_ok=True)
    return into


def _told(table: dict[str, Any], model: dict[str, Any], spec: dict[str, Any]) -> str:
    names = [name for name in model if name == "model" or name.startswith(("model:", "baseline"))]
    rows = "\n".join(
        f"| {name} | {model[name]['mae']} | {model[name]['rmse']} | {model[name]['r2']} |" for name in names
    )
    return (
        f"# {spec['target']}\n\n{table['rows']:,} rows; {model['rows']['trained']:,} learned from, "
        f"{model['rows']['held out']:,} held out.\n\n"
        f"| on the held-out rows, {spec.get('unit', '')} | mean absolute error | RMSE | R² |\n"
        f"|---|--:|--:|--:|\n{rows}\n\n"
        f"Parameters {model['parameters']}, {model['rounds']} rounds, on {model['device']}. Model: `{model['path']}`\n"
    )
