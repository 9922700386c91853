"""Held, planned, committed and bound, against bare Dask and against tasks restricted at submit.

`python -m bench.extension [--tasks N] [--rounds N] [--json FILE]`: the real governor process with the default rules,
five pools and every plan committed durably before its instructions; no-op tasks on two one-thread workers; rounds
interleaved.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import httpx
from distributed import Client, wait

from bench import table
from harness.cluster import environment, up
from harness.processes import ROOT

POOLS = "pools:\n" + "".join(
    f"  {name}: {{market: {market}, worker: {{cpus: 1, memory: 1 GiB}}, price: {usd}, workers: {{max: 1}}, "
    f"selector: {{name: '{name}-*'}}}}\n"
    for name, market, usd in (
        ("small", "on-demand", 0.10),
        ("large", "on-demand", 0.10),
        ("spot-a", "spot", 0.03),
        ("spot-b", "spot", 0.04),
        ("other", "on-demand", 0.20),
    )
)


def noop(x: int) -> int:
    """Does nothing."""
    return x


@contextmanager
def cluster(folder: Path, rules: str = "") -> Iterator[Client]:
    """Scheduler with the extension, governor with these rules more, two workers; all ended by their process ids."""
    (folder / "rules").mkdir()
    (folder / "rules/default.yaml").write_text((ROOT / "rules/default.yaml").read_text())
    (folder / "rules/more.yaml").write_text(rules or "rules: []\n")
    env = environment(folder, POOLS, folder / "rules")
    each = ("--no-nanny", "--memory-limit", "1GiB")
    with up(folder, env, {"small-0": each, "large-0": each}) as (client, _):
        yield client


def timed(client: Client, tasks: int, submit: Callable[[], Any]) -> float:
    """Tasks a second, from submit to the last result; nothing of them is left behind."""
    begin = time.perf_counter()
    futures = submit()
    wait(futures)
    took = time.perf_counter() - begin
    del futures
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
        time.sleep(0.02)
    return tasks / took


def bare(client: Client, tasks: int) -> Any:
    """Plain Dask: the extension lets it through."""
    with dask.annotate(orc={"mode": "off"}):
        return client.map(noop, range(tasks), pure=False)


def restricted(client: Client, tasks: int) -> Any:
    """Pinned to both workers when submitted: Dask sends all at once."""
    return client.map(noop, range(tasks), pure=False, workers=list(client.scheduler_info(n_workers=-1)["workers"]))


def governed(client: Client, tasks: int) -> Any:
    """Held, planned, committed, bound."""
    return client.map(noop, range(tasks), pure=False)


def latencies(client: Client, seconds: int = 10, rate: int = 200) -> list[float]:
    """Ready → bound in ms, of tasks submitted one by one at a steady rate."""
    futures, begin = [], time.perf_counter()
    for n in range(seconds * rate):
        futures.append(client.submit(noop, n, pure=False))
        time.sleep(max(0.0, begin + n / rate - time.perf_counter()))
    wait(futures)
    return sorted(client.sync(client.scheduler.orc_state, most=seconds * rate)["waits_ms"])


def main() -> None:
    """Run all."""
    said = table.arguments("the extension and the governor", tasks=5000, rounds=5)
    with tempfile.TemporaryDirectory() as name, cluster(Path(name)) as client:
        ways = {"bare Dask": bare, "restricted at submit": restricted, "governed": governed}
        for way in ways.values():
            timed(client, 500, lambda way=way: way(client, 500))  # type: ignore[misc]
        speeds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(said.rounds):
            for title, way in ways.items():
                speeds[title].append(timed(client, said.tasks, lambda way=way: way(client, said.tasks)))  # type: ignore[misc]
        waits = latencies(client)
        face = json.loads((Path(name) / "governor.json").read_text())
        status = httpx.get(face["url"] + "/v1/status", headers={"X-Orc-Token": face["token"]}).json()
        longest = client.sync(client.scheduler.orc_state)["longest_ms"]
    median = {title: statistics.median(values) for title, values in speeds.items()}
    ratio = {
        title: statistics.median(g / o for g, o in zip(speeds["governed"], speeds[title], strict=True))
        for title in ("bare Dask", "restricted at submit")
    }
    rows = [{"what": f"{title}, tasks a second", "floor": "", "measured": median[title]} for title in ways]
    rows += [
        {"what": "governed / bare Dask", "floor": "≥ 1.5", "measured": ratio["bare Dask"]},
        {"what": "governed / restricted at submit", "floor": "≥ 0.6", "measured": ratio["restricted at submit"]},
        {"what": "ready → bound at 200 a second: p50 ms", "floor": "", "measured": waits[len(waits) // 2]},
        {"what": "ready → bound at 200 a second: p99 ms", "floor": "≤ 20", "measured": waits[int(len(waits) * 0.99)]},
        {"what": "a durable commit: p50 ms", "floor": "", "measured": status["commit_ms"]["p50"]},
        {"what": "a durable commit: p99 ms", "floor": "", "measured": status["commit_ms"]["p99"]},
        {"what": "longest hold of the scheduler's loop by ORC, ms", "floor": "≤ 20", "measured": max(longest.values())},
    ]
    table.show(f"{said.tasks:,} no-op tasks, {said.rounds} interleaved rounds, medians", rows, said.json)


if __name__ == "__main__":
    main()
