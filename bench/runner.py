"""The task runner against prefect-dask's own, Prefect's thread pool and bare Dask, in one run.

`python -m bench.runner [--tasks N] [--stock N] [--pairs N] [--tiny N] [--rounds N] [--ways LIST] [--database URL]
[--recording] [--json FILE]`

One Prefect server (SQLite, or the database named), a plain Dask scheduler for prefect-dask and bare Dask, a governed
one with the real governor process, and two one-thread workers on each, all idle but the one that is measured. Every
measurement is a flow in a process of its own. Two clocks: to the last *result* in the flow, and to all *records*
terminal in the server, which are asked for only when the flow has ended. prefect-dask's own runner is measured on
fewer tasks and extrapolated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.services.environment import RECORDING
from bench import table
from harness.cluster import GOVERNED, environment, scheduler, worker
from harness.processes import ROOT, Processes, free_port
from harness.wait import until

POOLS = """pools:
  small:
    market: on-demand
    worker: {cpus: 1, memory: 1 GiB}
    price: 0.10
    workers: {max: 2}
    selector: {name: 'small-*'}
"""
#: way → what it is called in the table
WAYS = {
    "stock": "prefect-dask",
    "ours": "GovernedTaskRunner",
    "threads": "thread pool",
    "bare": "bare Dask",
}


# ---------------------------------------------------------------------- one measurement, in a process of its own
def one(way: str, kind: str, tasks: int, seconds: float) -> None:
    """Run a flow of that many tasks; print when it began, the seconds to its last result, and the flow run."""
    began, took, run = (_bare if way == "bare" else _flow)(way, kind, tasks, seconds)
    print(json.dumps({"began": began, "seconds": took, "flow_run": run}))


def _bare(_: str, kind: str, tasks: int, seconds: float) -> tuple[float, float, str]:
    from distributed import Client

    from bench.bodies import plain

    with Client(os.environ["BENCH_PLAIN"]) as client:
        client.gather(client.map(plain, range(8), [0.0] * 8, pure=False))
        began, begin = time.time(), time.perf_counter()
        if kind == "map":
            futures = client.map(plain, range(tasks), [seconds] * tasks, pure=False)
        else:
            futures = [client.submit(plain, n, seconds, pure=False) for n in range(tasks)]
        client.gather(futures)
        return began, time.perf_counter() - begin, ""


def _flow(way: str, kind: str, tasks: int, seconds: float) -> tuple[float, float, str]:
    from prefect import flow
    from prefect.runtime import flow_run
    from prefect.task_runners import ThreadPoolTaskRunner
    from prefect_dask import DaskTaskRunner

    from agent import GovernedTaskRunner, needs
    from bench.bodies import body, tiny

    runner: Any = {
        "stock": lambda: DaskTaskRunner(address=os.environ["BENCH_PLAIN"]),
        "ours": lambda: GovernedTaskRunner(address=os.environ["BENCH_GOVERNED"]),
        "threads": lambda: ThreadPoolTaskRunner(max_workers=2),
    }[way]()

    @flow(name=f"bench-{way}-{kind}", task_runner=runner)
    def measured(count: int, each: float) -> tuple[float, float, str]:
        began, begin = time.time(), time.perf_counter()
        if kind == "tiny":
            with needs(batch_size="auto"):
                got = tiny.map(range(count)).result()
        elif kind == "map":
            got = body.map(range(count), [each] * count).result()
        else:
            got = [future.result() for future in [body.submit(n, each) for n in range(count)]]
        took = time.perf_counter() - begin
        assert got == list(range(count))
        return began, took, str(flow_run.id)

    measured(4, 0.0)
    return measured(tasks, seconds)


# ---------------------------------------------------------------------- the services
@contextmanager
def services(folder: Path, database: str | None, recording: bool = False) -> Iterator[dict[str, str]]:
    """Server, two schedulers, a governor and four workers; their environment. Ended by their process ids."""
    api = free_port()
    env = {
        **environment(folder, POOLS, ROOT / "rules"),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{api}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    if recording:
        env |= RECORDING
    if database:
        env["PREFECT_API_DATABASE_CONNECTION_URL"] = database
    processes = Processes(folder, env)
    try:
        processes.start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(api), name="server")
        env["BENCH_PLAIN"] = scheduler(processes, "plain")
        env["BENCH_GOVERNED"] = scheduler(processes, "governed", *GOVERNED)
        until(lambda: _answers(f"{env['PREFECT_API_URL']}/health"), 120, 0.25)
        each = ("--no-nanny", "--memory-limit", "1GiB", "--preload", "agent.worker.preload")
        for name, address in (("large", env["BENCH_PLAIN"]), ("small", env["BENCH_GOVERNED"])):
            for number in range(2):
                worker(processes, address, f"{name}-{number}", *each)
        processes.start("agent.governor.process", env["BENCH_GOVERNED"], name="governor")
        from distributed import Client

        for address in (env["BENCH_PLAIN"], env["BENCH_GOVERNED"]):
            with Client(address, timeout=60) as client:
                client.wait_for_workers(2, timeout=120)
        until(lambda: (folder / "governor.json").exists(), 60, 0.25)
        yield env
    finally:
        processes.end()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _terminal(env: dict[str, str], flow_run: str) -> int:
    """Task runs of the flow run that the server has in a terminal state."""
    body = {
        "flow_runs": {"id": {"any_": [flow_run]}},
        "task_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}},
    }
    request = urllib.request.Request(
        env["PREFECT_API_URL"] + "/task_runs/count",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return int(json.loads(reply.read()))


def measure(
    env: dict[str, str], way: str, kind: str, tasks: int, seconds: float = 0.0, runs: int | None = None
) -> dict[str, float]:
    """Seconds to results and to records of a flow in a process of its own.

    Args:
        runs: task runs to wait for, when not `tasks`.
    """
    code = f"from bench.runner import one; one({way!r}, {kind!r}, {tasks}, {seconds})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{way} {kind}: {done.stderr[-3000:]}")
    said = json.loads(done.stdout.strip().splitlines()[-1])
    out = {"results": float(said["seconds"])}
    if said["flow_run"]:
        # the process ends when its events are sent, which takes some ways seconds; the server may still be writing then
        wanted = tasks if runs is None else runs
        until(lambda: _terminal(env, said["flow_run"]) >= wanted, 600, 0.25)
        out["records"] = time.time() - said["began"]
    return out


# ---------------------------------------------------------------------- the table
def speeds(env: dict[str, str], said: argparse.Namespace) -> list[dict[str, Any]]:
    """Tasks a second of every way, medians over the rounds."""
    ways = said.ways.split(",")
    rows = []
    for kind in ("map", "submit"):
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(said.rounds):
            for way in ways:
                found[way].append(measure(env, way, kind, said.stock if way == "stock" else said.tasks))
        rate = {}
        for way in ways:
            tasks = said.stock if way == "stock" else said.tasks
            rate[way] = tasks / statistics.median(one_["results"] for one_ in found[way])
        for way in ways:
            records = [one_["records"] for one_ in found[way] if "records" in one_]
            tasks = said.stock if way == "stock" else said.tasks
            rows.append(
                {
                    "what": f"{kind}: {WAYS[way]}",
                    "tasks a second": rate[way],
                    "× prefect-dask": rate[way] / rate["stock"] if "stock" in rate else "",
                    "all records, s": statistics.median(records) * said.tasks / tasks if records else "",
                }
            )
    return rows


def small(env: dict[str, str], said: argparse.Namespace) -> list[dict[str, Any]]:
    """Items a second of a map of tiny items merged into chunks, over prefect-dask's tasks a second in the same run."""
    stock = (
        statistics.median(measure(env, "stock", "map", said.stock)["results"] for _ in range(said.rounds)) / said.stock
    )
    ours = [measure(env, "ours", "tiny", said.tiny, runs=0)["results"] / said.tiny for _ in range(said.rounds)]
    return [
        {
            "what": f"{said.tiny:,} tiny items, batch_size=auto: items a second",
            "floor": "",
            "measured": 1 / statistics.median(ours),
        },
        {"what": "× prefect-dask", "floor": "≥ 100", "measured": stock / statistics.median(ours)},
    ]


def pairs(env: dict[str, str], said: argparse.Namespace) -> list[dict[str, Any]]:
    """Wall of a flow with ordinary tasks, ours over prefect-dask's, pair by pair."""
    ratios = []
    for number in range(said.pairs):
        order = ("stock", "ours") if number % 2 else ("ours", "stock")
        wall = {way: measure(env, way, "map", said.each, said.seconds, runs=0)["results"] for way in order}
        ratios.append(wall["ours"] / wall["stock"])
    ratios.sort()
    return [
        {
            "what": f"{said.each} tasks of {said.seconds} s, ours / prefect-dask: median",
            "floor": "≤ 1.00",
            "measured": statistics.median(ratios),
        },
        {"what": "p95", "floor": "≤ 1.05", "measured": ratios[min(len(ratios) - 1, round(0.95 * len(ratios)))]},
    ]


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description="the task runner")
    for name, default in {"tasks": 1000, "stock": 300, "pairs": 20, "each": 8, "rounds": 1, "tiny": 10_000}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--ways", default="stock,ours,threads,bare")
    parser.add_argument("--database", help="SQLAlchemy URL of the server's database; by default SQLite in a new folder")
    parser.add_argument("--recording", action="store_true", help="the server records in batches, as that of `orc up`")
    parser.add_argument("--keep", type=Path, help="folder for the logs, kept")
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, services(said.keep or Path(name), said.database, said.recording) as env:
        for way in said.ways.split(","):
            measure(env, way, "map", 8)
        rows: list[dict[str, Any]] = []
        if said.tasks:
            rows = speeds(env, said)
            table.show(
                f"{said.tasks:,} no-op tasks (prefect-dask: {said.stock:,}, extrapolated), "
                f"{'SQLite' if not said.database else said.database.split(':')[0]}",
                rows,
                said.json,
            )
        if said.tiny:
            table.show("small items", small(env, said), None)
        if said.pairs:
            table.show(f"{said.pairs} interleaved pairs", pairs(env, said), None)


if __name__ == "__main__":
    main()
