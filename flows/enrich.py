"""Tables in, a knowledge graph out: declared by a mapping, counted against the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.futures import PrefectFuture

from agent import GovernedTaskRunner, needs
from flows.steps import graph, shaping
from flows.steps import mapping as mappings

#: parts that are loaded at once: with more, both servers lose in races for the same nodes what they gain (see
#: bench/graph_load.py)
LOADERS = 2


@needs(team="data")
@flow(task_runner=GovernedTaskRunner)
def enrich(
    tables: dict[str, str], mapping: str, folder: str, table: str | None = None, features: list[str] | None = None
) -> dict[str, Any]:
    """Turn tables into nodes and relations, and read features of a table back from the graph.

    Args:
        tables: table name → parquet folder or glob.
        mapping: path of the mapping file.
        folder: where rows and the featured table go.
        table: parquet folder that the features are joined to.
        features: names of queries in the mapping.

    Returns:
        `load`, `server`, `counts` (one entry for each label and type), and `table`, with the features.
    """
    said = mappings.read(mapping)
    # everything that can be wrong is found before the graph is touched
    mappings.require(said, {name: shaping.columns_of(path) for name, path in tables.items()})
    names, rows = [kind.name for kind in (*said.nodes, *said.relations)], str(Path(folder) / "graph")
    shapes = [
        shaping.shape.submit(name, said.text, {k: tables[k] for k in sorted(said.tables())}, rows) for name in names
    ]
    shaped = [future.result() for future in shapes]
    opened = graph.open_graph.submit(said.text, shaped).result()
    for kinds in (said.nodes, said.relations):
        of = {kind.name for kind in kinds}
        parts = [(s["name"], part, s["folder"]) for s in shaped if s["name"] in of for part in s["parts"]]
        loads: list[PrefectFuture[int]] = []
        for n, (name, part, where) in enumerate(parts):
            before = loads[n - LOADERS : n - LOADERS + 1] if n >= LOADERS else None
            loads.append(graph.load.submit(name, part, where, said.text, opened, wait_for=before))
        for loaded in loads:
            loaded.result()
    counts = graph.compare.submit(said.text, shaped, opened).result()
    create_markdown_artifact(told(counts, opened), description="What the graph holds, beside the tables")
    out = {"load": opened["load"], "server": opened["server"], "counts": counts, "table": table}
    if table is not None and features:
        out["table"] = graph.features.submit(table, features, said.text, opened, folder).result()
    return out


def told(counts: list[dict[str, Any]], opened: dict[str, str]) -> str:
    """The counts, in markdown."""
    lines = [
        f"# Load {opened['load']} on {opened['server']}\n",
        "| | rows read | without key | duplicates | orphans | in the graph | of earlier loads | alone |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in counts:
        name = f":{row['name']}" if row["kind"] == "node" else f"→ {row['name']}"
        counted = ("read", "without_key", "duplicates", "orphans", "in_graph", "of_earlier_loads")
        cells = [name, *(f"{row[each]:,}" for each in counted), f"{row['alone'] if row['kind'] == 'node' else ''}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\n{row['name']}: {', '.join(row['examples'])}" for row in counts if row["examples"]]
    return "\n".join(lines) + "\n"
