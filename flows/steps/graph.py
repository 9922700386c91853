"""Tables into a graph: rows shaped and counted, loaded in parallel, compared with what the graph then holds."""

from __future__ import annotations

import hashlib
import time
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
from agent.errors import GraphError
from agent.graph.bolt import BATCH, Graph, address, quoted
from agent.settings import load as settings
from flows.steps import mapping as m
from flows.steps import planning
from flows.steps.tables import glob_of, moved

#: what a task has loaded or shaped is not done again with the same inputs on the same graph
_POLICY = INPUTS + TASK_SOURCE
#: rows of one load task: some seconds of work, so that a lost worker costs little
PART_ROWS = 20_000
_SIZE = "__rows"


class CountError(GraphError):
    """The graph does not hold what the tables say."""


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
    mapping = _parsed(text)
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


def _parsed(text: str) -> m.GraphMapping:
    import yaml

    return m.parse(yaml.safe_load(text), text, "of this run")


def _grouped(kind: m.Kind, table: str) -> tuple[pd.DataFrame, int]:
    """One row for each combination of key and plain columns, with its aggregates; and how many rows were read."""
    how = {"first": "first", "sum": "sum", "mean": "mean", "min": "min", "max": "max"}
    plain = list(
        dict.fromkeys(
            [
                *kind.columns,
                *(kind.start.columns if kind.start else ()),
                *(kind.end.columns if kind.end else ()),
                *(c for _, c in kind.plain),
            ]
        )
    )
    spec = {f"__{prop}": (column, how[a]) for prop, a, column in kind.aggregates if a != "count"}
    frame = dd.read_parquet(glob_of(table), columns=list(kind.wanted))
    frame = frame.assign(**{_SIZE: 1})
    with worker_client() as client:
        with planning.one_at_a_time:
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
        there = dd.read_parquet(glob_of(tables[node.table]), columns=list(node.columns)).drop_duplicates()
        with worker_client() as client:
            known = set(_joined(client.compute(there).result().dropna(), node.columns))
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


@needs(interruptible=True, runtime="1s", memory="512 MiB", max_runtime="2 min")
@task(task_run_name="open the graph")
def open_graph(text: str, shapes: list[dict[str, Any]]) -> dict[str, str]:
    """Constraints first; then the mark of this store, and the node of this load.

    Returns:
        `load`, the digest of mapping and rows; `store`, which is another one when the graph was emptied; `server`.
    """
    mapping = _parsed(text)
    load = hashlib.sha256("|".join([text, *(s["digest"] for s in shapes)]).encode()).hexdigest()[:12]
    with Graph(address(settings())) as graph:
        server = graph.server()
        for node in mapping.nodes:
            graph.unique(node.name, node.key)
        graph.unique("GraphStore", "name")
        graph.unique("GraphLoad", "id")
        store = graph.run(
            "MERGE (s:GraphStore {name: 'store'}) ON CREATE SET s.id = $id RETURN s.id AS id", id=uuid.uuid4().hex
        )[0]["id"]
        graph.run(
            "MERGE (l:GraphLoad {id: $id}) ON CREATE SET l.began = datetime($now), l.rows = $rows, l.tables = "
            "$tables RETURN l.id AS id",
            id=load,
            now=_now(),
            rows=sum(s["rows"] for s in shapes),
            tables=sorted(mapping.tables()),
        )
    return {"load": load, "store": str(store), "server": server}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@needs(interruptible=True, runtime="5s", memory="512 MiB", max_runtime="10 min")
@task(cache_policy=_POLICY, task_run_name="load {name} {part}")
def load(name: str, part: str, folder: str, text: str, opened: dict[str, str]) -> int:
    """MERGE one part; running it twice leaves the graph as running it once. How many rows it wrote."""
    mapping = _parsed(text)
    kind = next(k for k in (*mapping.nodes, *mapping.relations) if k.name == name)
    lineage.reads(folder)
    with Graph(address(settings())) as graph:
        wrote = write(graph, kind, Path(folder) / part, {mapping.provenance: opened["load"]})
        lineage.writes(f"{graph.at.url}#{opened['load']}", "graph")
    return wrote


def write(graph: Graph, kind: m.Kind, part: Path, marks: Mapping[str, Any], batch: int = BATCH) -> int:
    """MERGE the rows of a parquet part, each with `marks` as further properties; how many there were."""
    own = ("_key", "_a", "_b")
    rows = [
        {**{k: row[k] for k in own if k in row}, "p": {**{k: v for k, v in row.items() if k not in own}, **marks}}
        for row in pq.read_table(part).to_pylist()
    ]
    graph.write(statement(kind), rows, batch)
    return len(rows)


def statement(kind: m.Kind) -> str:
    """The Cypher that writes rows of a kind; for Neo4j and the embedded server alike."""
    if kind.start is None or kind.end is None:
        return f"UNWIND $rows AS row MERGE (n:{quoted(kind.name)} {{{quoted(kind.key)}: row._key}}) SET n += row.p"
    a, b = kind.start, kind.end
    return (
        f"UNWIND $rows AS row MATCH (a:{quoted(a.label)} {{{quoted(a.key)}: row._a}}) MATCH (b:{quoted(b.label)} "
        f"{{{quoted(b.key)}: row._b}}) "
        f"MERGE (a)-[r:{quoted(kind.name)}]->(b) SET r += row.p"
    )


@needs(interruptible=True, runtime="2s", memory="512 MiB", max_runtime="10 min")
@task(task_run_name="compare the graph with the tables")
def compare(text: str, shapes: list[dict[str, Any]], opened: dict[str, str]) -> list[dict[str, Any]]:
    """What the graph holds of this load, beside what the tables say; and what of earlier loads no table says any more.

    Raises:
        CountError: a count differs.
    """
    mapping, out = _parsed(text), []
    said = {s["name"]: s for s in shapes}
    with Graph(address(settings())) as graph:
        for kind in (*mapping.nodes, *mapping.relations):
            node = kind.start is None
            what = f"(x:{quoted(kind.name)})" if node else f"()-[x:{quoted(kind.name)}]->()"
            where = f"x.{quoted(mapping.provenance)}"
            found = graph.read(f"MATCH {what} WHERE {where} = $load RETURN count(x) AS n", load=opened["load"])[0]["n"]
            older = graph.read(f"MATCH {what} WHERE {where} <> $load RETURN count(x) AS n", load=opened["load"])[0]["n"]
            alone = graph.read(f"MATCH {what} WHERE NOT (x)--() RETURN count(x) AS n")[0]["n"] if node else 0
            shaped = said[kind.name]
            keep = ("rows", "read", "without_key", "duplicates", "orphans", "examples")
            out.append(
                {
                    "name": kind.name,
                    "kind": "node" if node else "relation",
                    "in_graph": found,
                    "of_earlier_loads": older,
                    "alone": alone,
                    **{k: shaped[k] for k in keep},
                }
            )
        if wrong := [row for row in out if row["in_graph"] != row["rows"]]:
            raise CountError(
                "; ".join(
                    f"{row['name']}: the tables say {row['rows']}, the graph holds {row['in_graph']}" for row in wrong
                )
                + "; somebody else changes this graph, or part of it was lost: run again with the same mapping to "
                "repair it"
            )
        graph.run(
            "MATCH (l:GraphLoad {id: $id}) SET l.ended = datetime($now) RETURN l.id AS id",
            id=opened["load"],
            now=_now(),
        )
    return out


@needs(interruptible=True, runtime="5s", memory="1 GiB")
@task(cache_policy=_POLICY, task_run_name="features from the graph")
def features(table: str, names: list[str], text: str, opened: dict[str, str], folder: str) -> str:
    """The table with columns read back from the graph, partition by partition.

    Raises:
        MappingError: no such feature, a query without the columns it is joined by, or two rows for one key.
    """
    mapping, asked = _parsed(text), []
    known = {f.name: f for f in mapping.features}
    there = columns_of(table)
    lineage.reads(table)
    with Graph(address(settings())) as graph:
        lineage.reads(f"{graph.at.url}#{opened['load']}", "graph")
        for name in names:
            if name not in known:
                raise m.MappingError(
                    f"there is no feature {name!r} in the mapping; it has {', '.join(known) or 'none'}"
                )
            feature = known[name]
            frame = pd.DataFrame(graph.read(feature.cypher))
            asked.append((feature, _checked(feature, frame, there)))
    into = Path(folder) / "featured"
    beside = into.with_name(f".{into.name}-{uuid.uuid4().hex}")
    beside.mkdir(parents=True)
    for file in sorted(Path(table).glob("*.parquet")):
        rows = pd.read_parquet(file)
        for feature, frame in asked:
            new = [c for c in frame.columns if c not in feature.by]
            rows = rows.merge(frame, on=list(feature.by), how="left")
            if feature.missing is not None:
                rows[new] = rows[new].fillna(feature.missing)
        rows.to_parquet(beside / file.name, index=False)
    lineage.writes(str(into))
    return moved(beside, into)


def _checked(feature: m.Feature, frame: pd.DataFrame, there: Sequence[str]) -> pd.DataFrame:
    if missing := [c for c in feature.by if c not in frame.columns]:
        raise m.MappingError(
            f"feature {feature.name}: its query returns {', '.join(map(str, frame.columns)) or 'nothing'}, and not "
            f"{missing[0]!r} to join by"
        )
    if missing := [c for c in feature.by if c not in there]:
        raise m.MappingError(
            f"feature {feature.name}: the table has no column {missing[0]!r} to join by; it has {', '.join(there)}"
        )
    if taken := [c for c in frame.columns if c not in feature.by and c in there]:
        raise m.MappingError(
            f"feature {feature.name}: the table has a column {taken[0]!r} already; name it otherwise in the query"
        )
    if frame.duplicated(list(feature.by)).any():
        first = frame[frame.duplicated(list(feature.by))].iloc[0]
        raise m.MappingError(
            f"feature {feature.name}: two rows for {', '.join(f'{c}={first[c]}' for c in feature.by)}; a feature "
            f"needs one for each key"
        )
    return frame
