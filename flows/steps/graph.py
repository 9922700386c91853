"""Shaped rows into a graph: loaded in parallel, compared with what the graph then holds, and read back as features."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import INPUTS, TASK_SOURCE

from agent import lineage, needs
from agent.errors import GraphError
from agent.graph.bolt import BATCH, Graph, address, quoted
from agent.settings import load as settings
from flows.steps import mapping as m
from flows.steps.shaping import columns_of
from flows.steps.tables import moved

#: what a task has loaded is not done again with the same inputs on the same graph
_POLICY = INPUTS + TASK_SOURCE
#: what is said of a load's rows as they were shaped
_SHAPED = ("rows", "read", "without_key", "duplicates", "orphans", "examples")


class CountError(GraphError):
    """The graph does not hold what the tables say."""


@needs(interruptible=True, runtime="1s", memory="512 MiB", max_runtime="2 min")
@task(task_run_name="open the graph")
def open_graph(text: str, shapes: list[dict[str, Any]]) -> dict[str, str]:
    """Constraints first; then the mark of this store, and the node of this load.

    Returns:
        `load`, the digest of mapping and rows; `store`, which is another one when the graph was emptied; `server`.
    """
    mapping = m.parsed(text)
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
            "MERGE (l:GraphLoad {id: $id}) ON CREATE SET l.began = datetime($now), l.rows = $rows, "
            "l.tables = $tables RETURN l.id AS id",
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
    mapping = m.parsed(text)
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
        f"UNWIND $rows AS row MATCH (a:{quoted(a.label)} {{{quoted(a.key)}: row._a}}) "
        f"MATCH (b:{quoted(b.label)} {{{quoted(b.key)}: row._b}}) "
        f"MERGE (a)-[r:{quoted(kind.name)}]->(b) SET r += row.p"
    )


@needs(interruptible=True, runtime="2s", memory="512 MiB", max_runtime="10 min")
@task(task_run_name="compare the graph with the tables")
def compare(text: str, shapes: list[dict[str, Any]], opened: dict[str, str]) -> list[dict[str, Any]]:
    """What the graph holds of this load, beside what the tables say; and what of earlier loads no table says any more.

    Raises:
        CountError: a count differs.
    """
    mapping, out = m.parsed(text), []
    said = {s["name"]: s for s in shapes}
    with Graph(address(settings())) as graph:
        for kind in (*mapping.nodes, *mapping.relations):
            node = kind.start is None
            what = f"(x:{quoted(kind.name)})" if node else f"()-[x:{quoted(kind.name)}]->()"
            where = f"x.{quoted(mapping.provenance)}"
            found = graph.read(f"MATCH {what} WHERE {where} = $load RETURN count(x) AS n", load=opened["load"])[0]["n"]
            older = graph.read(f"MATCH {what} WHERE {where} <> $load RETURN count(x) AS n", load=opened["load"])[0]["n"]
            alone = graph.read(f"MATCH {what} WHERE NOT (x)--() RETURN count(x) AS n")[0]["n"] if node else 0
            row = {
                "name": kind.name,
                "kind": "node" if node else "relation",
                "in_graph": found,
                "of_earlier_loads": older,
                "alone": alone,
            }
            out.append(row | {name: said[kind.name][name] for name in _SHAPED})
        if wrong := [row for row in out if row["in_graph"] != row["rows"]]:
            raise CountError(
                "; ".join(
                    f"{row['name']}: the tables say {row['rows']}, the graph holds {row['in_graph']}" for row in wrong
                )
                + "; somebody else changes this graph, or part of it was lost: "
                "run again with the same mapping to repair it"
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
    mapping, asked = m.parsed(text), []
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
            f"feature {feature.name}: its query returns {', '.join(map(str, frame.columns)) or 'nothing'}, "
            f"and not {missing[0]!r} to join by"
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
            f"feature {feature.name}: two rows for {', '.join(f'{c}={first[c]}' for c in feature.by)}; "
            "a feature needs one for each key"
        )
    return frame
