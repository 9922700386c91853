"""A table of several times the workers' memory through one governed task on a pool of two workers; none may be killed.

`python -m bench.preprocess [--limit-mib N] [--factor N] [--partition-mib N] [--json FILE]`
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
from distributed import Client, get_worker

from bench import table
from flows.steps.tables import build
from harness.cluster import environment, up
from harness.processes import ROOT

POOLS = """pools:
  two:
    market: on-demand
    worker: {cpus: 1, memory: LIMIT MiB}
    price: 0.1
    workers: {max: 2}
    selector: {name: 'two-*'}
"""
SPEC = {
    "from": "facts",
    "joins": [{"with": "names", "by": ["key"], "keep": ["weight"]}],
    "derive": {"total": "value * weight"},
    "drop_missing": ["value"],
    "columns": {
        "key": {"type": "int", "min": 0},
        "value": {"type": "float", "min": 0},
        "weight": {"type": "float"},
        "total": {"type": "float"},
    },
}


def write(folder: Path, total_mib: int, partition_mib: int) -> tuple[dict[str, str], int]:
    """Parquet files of so many MiB once read, small on disk by few distinct values; sources and rows."""
    rows = partition_mib * 2**20 // 24
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "key": rng.integers(0, 100, rows),
            "value": rng.integers(0, 50, rows).astype(float),
            "more": rng.integers(0, 50, rows).astype(float),
        }
    )
    facts = folder / "facts"
    facts.mkdir()
    frame.to_parquet(facts / "part-0.parquet", index=False)
    count = total_mib // partition_mib
    for n in range(1, count):
        os.link(facts / "part-0.parquet", facts / f"part-{n}.parquet")
    pd.DataFrame({"key": range(100), "weight": np.linspace(0, 1, 100)}).to_parquet(folder / "names.parquet")
    return {"facts": str(facts), "names": str(folder / "names.parquet")}, rows * count


def run(spec: dict[str, Any], sources: dict[str, str], folder: str) -> str:
    """The body of the flow's task, its inner work marked as the runner's body marks it."""
    with dask.annotate(orc={"inner": get_worker().get_current_task()}):
        path: str = build.fn("table", spec, sources, folder)
        return path


@contextmanager
def workers(folder: Path, limit_mib: int) -> Iterator[tuple[Client, list[subprocess.Popen[bytes]]]]:
    """A governed scheduler and two one-thread workers under nannies, which kill at 95 % of the limit."""
    text = POOLS.replace("LIMIT", str(limit_mib))
    env = {**environment(folder, text, ROOT / "rules"), "MALLOC_TRIM_THRESHOLD_": "65536"}
    each = ("--memory-limit", f"{limit_mib}MiB", "--local-directory", str(folder))
    with up(folder, env, {"two-0": each, "two-1": each}) as (client, processes):
        yield client, [processes.named["two-0"], processes.named["two-1"]]


def measure(folder: Path, limit_mib: int, factor: int, partition_mib: int) -> dict[str, Any]:
    """Peak memory of the two workers while the table goes through, and whether one was killed."""
    sources, rows = write(folder, 2 * limit_mib * factor, partition_mib)
    with workers(folder, limit_mib) as (client, nannies):
        pids = _pids(nannies)
        peaks, done = dict.fromkeys(pids, 0), threading.Event()

        def watch() -> None:
            while not done.wait(0.1):
                for pid in pids:
                    if psutil.pid_exists(pid):
                        peaks[pid] = max(peaks[pid], psutil.Process(pid).memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        begin = time.perf_counter()
        try:
            path = client.submit(run, SPEC, sources, str(folder / "out"), pure=False).result(timeout=900)
        finally:
            done.set()
            watcher.join()
        took = time.perf_counter() - begin
        survived = _pids(nannies) == pids
    kept = sum(len(pd.read_parquet(file, columns=["key"])) for file in Path(path).glob("*.parquet"))
    return {
        "table, MiB": 2 * limit_mib * factor,
        "workers' memory, MiB": 2 * limit_mib,
        "peak of a worker, MiB": max(peaks.values()) // 2**20,
        "killed": "none" if survived else "some",
        "rows right": str(kept == rows),
        "seconds": round(took, 1),
        "MiB a second": round(2 * limit_mib * factor / took),
    }


def _pids(nannies: list[subprocess.Popen[bytes]]) -> list[int]:
    """The workers' own processes, below their nannies."""
    found = []
    for nanny in nannies:
        children = psutil.Process(nanny.pid).children(recursive=True)
        found.append(max(children, key=lambda p: p.memory_info().rss).pid)
    return sorted(found)


def main() -> None:
    """Run once."""
    said = table.arguments("larger than memory", limit_mib=1024, factor=4, partition_mib=32)
    with tempfile.TemporaryDirectory() as name:
        table.show(
            "a table through a pool of two workers",
            [measure(Path(name), said.limit_mib, said.factor, said.partition_mib)],
            said.json,
        )


if __name__ == "__main__":
    main()
