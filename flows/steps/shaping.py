"""Tables into rows of nodes and relations: each key once, counted, in parts that are loaded one by one."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow.parquet as pq
from distributed import worker_client
from prefect import task
from prefect.cache_policies import INPUTS, TASK_SOURCE

from agent import lineage, needs
from flows.steps import mapping as m
from flows.steps import planning
from flows.steps.tables import glob_of, moved

#: what a task has shaped is not done again with the same inputs
_POLICY = INPUTS + TASK_SOURCE
#: rows of one load task: some seconds of work, so that a lost worker costs little
PART_ROWS = 20_000
_SIZE = "__rows"


def columns_of(table: str) -> list[str]:
    """Columns of a parquet folder, file or glob, without reading its rows."""
    pattern = Path(glob_of(table))
    first = next(iter(sorted(pattern.parent.glob(pattern.name))), None)
    if first is None:
        raise m.MappingError(f"table {table} has no parquet file")
    return list(pq.read_schema(first).names)


@needs(interruptible=True, runtime="3s", memory="1 GiB")
@task(cache_policy=_POLICY, task_run_name="shape {name}")
def shape(name: str, text: str, tables: dict[str, str], folder: str) -> dict[str, Any]:
    """The rows of one node or relation, each key once, in parquet parts.

    Args:
        name: a label or relation type of the mapping.
        text: the mapping file's content.
        tables: table name → parquet.
        folder: the rows go to `folder/NAME`.

    Returns:
        `parts`, `rows`, `read` (rows of the table), `without_key`, `duplicates` (rows that repeat another's key where
        the mapping does not expect it), `orphans` (relations one of whose ends is in no table) with `examples`,
        `digest`.

    Raises:
        MappingError: two rows of one key differ; or orphans, where the mapping refuses them.
    """
    mapping = m.parsed(text)
    kind = next(k for k in (*mapping.nodes, *mapping.relations) if k.name == name)
    keys = (
        {"_key": kind.columns}
        if kind.start is None or kind.end is None
        else {"_a": kind.start.columns, "_b": kind.end.columns}
    )
    lineage.reads(tables[kind.table])
    frame, read = _grouped(kind, tables[kind.table])
    found = frame.dropna(subset=[c for columns in keys.values() for c in columns])
    without_key = read - int(found[_SIZE].sum())
    out = pd.DataFrame({at: _joined(found, columns) for at, columns in keys.items()})
    twice = out.duplicated(keep=False)
    if twice.any():
        first = tuple(out[twice].iloc[0])
        raise m.MappingError(
            f"{name}: key {' → '.join(first)} is not unique in table {kind.table}: its rows differ in "
            f"{_differing(found[twice.to_numpy()], kind, out[twice])}; "
            "take other columns as key, or say how rows become one ({first: …}, {mean: …})"
        )
    duplicates = 0 if kind.distinct else int((found[_SIZE] - 1).sum())
    for prop, column in kind.plain:
        out[prop] = found[column].to_numpy()
    for prop, _, _ in kind.aggregates:
        out[prop] = found[f"__{prop}"].to_numpy()
    orphans, examples = _orphans(kind, mapping, tables, out)
    if orphans.any() and kind.refuse_orphans:
        raise m.MappingError(
            f"{name}: {int(orphans.sum())} relations lead to nothing ({'; '.join(examples)}); the mapping refuses them"
        )
    out = out[~orphans].sort_values(list(keys), ignore_index=True)
    into = Path(folder) / name
    parts, digest = _written(out, into)
    return {
        "name": name,
        "folder": str(into),
        "parts": parts,
        "rows": len(out),
        "read": read,
        "without_key": without_key,
        "duplicates": duplicates,
        "orphans": int(orphans.sum()),
        "examples": examples,
        "digest": digest,
    }


def _grouped(kind: m.Kind, table: str) -> tuple[pd.DataFrame, int]:
    """One row for each combination of the key and the plain columns, with its aggregates; and how many were read."""
    how = {"first": "first", "sum": "sum", "mean": "mean", "min": "min", "max": "max"}
    ends = [column for end in (kind.start, kind.end) if end is not None for column in end.columns]
    plain = list(dict.fromkeys([*kind.columns, *ends, *(column for _, column in kind.plain)]))
    spec = {f"__{prop}": (column, how[a]) for prop, a, column in kind.aggregates if a != "count"}
    with worker_client() as client:
        with planning.one_at_a_time:
            frame = dd.read_parquet(glob_of(table), columns=list(kind.wanted)).assign(**{_SIZE: 1})
            made = frame.groupby(plain, dropna=False, sort=False).agg(**spec, **{_SIZE: (_SIZE, "sum")}).reset_index()
            future = client.compute(made)
        grouped: pd.DataFrame = future.result()
    for prop, a, _ in kind.aggregates:
        if a == "count":
            grouped[f"__{prop}"] = grouped[_SIZE]
    return grouped, int(grouped[_SIZE].sum())


def _joined(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series[Any]:
    """The key as text or number: a single column as it is, several with | between."""
    parts = [frame[c].astype("int64") if _whole(frame[c]) else frame[c] for c in columns]
    if len(parts) == 1:
        return parts[0].astype(str) if not pd.api.types.is_integer_dtype(parts[0]) else parts[0]
    text = parts[0].astype(str)
    for part in parts[1:]:
        text = text + "|" + part.astype(str)
    return text


def _whole(values: pd.Series[Any]) -> bool:
    """Whether a float column holds whole numbers: missing values made pandas read 2013 as 2013.0."""
    return bool(pd.api.types.is_float_dtype(values) and (values == values.round()).all())


def _differing(rows: pd.DataFrame, kind: m.Kind, keys: pd.DataFrame) -> str:
    first = (keys == keys.iloc[0]).all(axis=1).to_numpy()
    differ = [
        f"{column} ({', '.join(map(str, rows[first][column].unique()[:3]))})"
        for _, column in kind.plain
        if rows[first][column].nunique(dropna=False) > 1
    ]
    return ", ".join(differ) or "their ends"


def _orphans(
    kind: m.Kind, mapping: m.GraphMapping, tables: Mapping[str, str], out: pd.DataFrame
) -> tuple[pd.Series[Any], list[str]]:
    """Which relations have an end that no node has, and some of them."""
    bad, examples = pd.Series(False, index=out.index), []
    for at, end in (("_a", kind.start), ("_b", kind.end)):
        if end is None:
            continue
        node = next(k for k in mapping.nodes if k.name == end.label)
        if node.table == kind.table and node.columns == end.columns:
            continue
        with worker_client() as client:
            with planning.one_at_a_time:
                there = dd.read_parquet(glob_of(tables[node.table]), columns=list(node.columns)).drop_duplicates()
                future = client.compute(there)
            known = set(_joined(future.result().dropna(), node.columns))
        missing = ~out[at].isin(known)
        examples += [f"no {end.label} {value}" for value in out.loc[missing, at].drop_duplicates().head(5)]
        bad |= missing
    return bad, examples


def _written(rows: pd.DataFrame, into: Path) -> tuple[list[str], str]:
    beside = into.with_name(f".{into.name}-{uuid.uuid4().hex}")
    beside.mkdir(parents=True)
    digest, parts = hashlib.sha256(), []
    for at in range(0, max(1, len(rows)), PART_ROWS):
        part = f"part-{at // PART_ROWS:05}.parquet"
        chunk = rows.iloc[at : at + PART_ROWS]
        chunk.to_parquet(beside / part, index=False)
        digest.update(pd.util.hash_pandas_object(chunk, index=False).to_numpy().tobytes())
        parts.append(part)
    moved(beside, into)
    return parts, digest.hexdigest()[:16]
