"""What `orc up` costs while nothing happens: CPU seconds, wake-ups and memory of each of its processes.

`python -m bench.idle [--seconds 120] [--held 10000] [--json FILE]`

An `orc up` of its own in a folder of its own, first with nothing to do, then with tasks that wait for a person. A
wake-up is a voluntary context switch: a thread that was waiting and went on. Exits with 1 when a floor is missed.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from distributed import Client

from bench import table
from harness.instance import Instance
from harness.wait import until

POOLS = """pools:
  spot: {market: spot, worker: {cpus: 1, memory: 1 GiB}, price: 0.10, workers: {max: 2}, provider: local}
  on-demand: {market: on-demand, worker: {cpus: 1, memory: 1 GiB}, price: 0.34, workers: {max: 2}, provider: local}
"""
RULES = """rules:
  - {name: ask-for-all, reason: nothing runs in this measurement, when: {}, then: {escalate: any}}
"""
#: what is ours; the rest of `orc up` is Prefect's server and its worker. Dask's scheduler carries our extension
OURS = ("supervisor", "dask-scheduler", "governor", "mind", "graph")
#: most of a core: all that is ours, all of `orc up`
FLOOR_OURS, FLOOR_ALL = 3.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One process over a stretch of time."""

    service: str
    cpu_seconds: float
    wakeups: int
    memory_mib: float
    seconds: float

    @property
    def percent(self) -> float:
        """Of a core."""
        return 100 * self.cpu_seconds / self.seconds


def measure(services: Mapping[str, int], seconds: float) -> list[Usage]:
    """Each service's process and what it started, over so many seconds.

    Args:
        services: name → process id.
    """
    trees = {name: _tree(pid, set(services.values())) for name, pid in services.items()}
    before = {name: [_taken(process) for process in tree] for name, tree in trees.items()}
    begin = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begin
    out = []
    for name, tree in trees.items():
        after = [_taken(process) for process in tree]
        pairs = list(zip(before[name], after, strict=True))
        out.append(
            Usage(
                service=name,
                cpu_seconds=sum(new[0] - old[0] for old, new in pairs),
                wakeups=sum(new[1] - old[1] for old, new in pairs),
                memory_mib=sum(new[2] for new in after) / 2**20,
                seconds=took,
            )
        )
    return out


def _tree(pid: int, others: set[int]) -> list[psutil.Process]:
    """It and what it started, but the other services: the supervisor has started them all."""
    process = psutil.Process(pid)
    return [
        process,
        *(below for child in process.children() if child.pid not in others for below in _tree(child.pid, others)),
    ]


def _taken(process: psutil.Process) -> tuple[float, int, int]:
    """CPU seconds, wake-ups of all threads, resident bytes."""
    cpu = process.cpu_times()
    wakeups = 0
    for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
        # a thread that has just ended takes its count along
        with contextlib.suppress(OSError):
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            wakeups += int(lines["voluntary_ctxt_switches"])
    return cpu.user + cpu.system, wakeups, process.memory_info().rss


def orc_up(folder: Path) -> Instance:
    """`orc up` in that folder, where all tasks wait for a person."""
    (folder / "rules").mkdir()
    (folder / "rules/ask.yaml").write_text(RULES)
    return Instance(folder, POOLS, folder / "rules", ORC_MODE="govern").up()


def _noop(x: int) -> int:
    return x


def _settled(services: Mapping[str, int], most_seconds: float) -> None:
    """Wait until what was just started or submitted has been dealt with: under the floor for some seconds."""
    end = time.monotonic() + most_seconds
    while time.monotonic() < end and sum(usage.percent for usage in measure(services, 5)) > FLOOR_ALL:
        continue


def main() -> int:
    """Both states, one table."""
    said = table.arguments("what orc up costs at rest", seconds=120, held=10_000)
    rows: list[dict[str, Any]] = []
    missed: list[str] = []
    with tempfile.TemporaryDirectory() as name, orc_up(Path(name)) as orc:
        services = {"supervisor": orc.supervisor(), **orc.services()}
        with Client(orc.env["ORC_SCHEDULER"], timeout=60) as client:
            for held in (0, said.held):
                futures = client.map(_noop, range(held), pure=False) if held else []
                until(lambda count=held: _held(client) >= count, 120)  # type: ignore[misc]
                _settled(services, 120)
                used = measure(services, said.seconds)
                rows += [_row(usage, held) for usage in used]
                for title, of, floor in (
                    ("ours", [u for u in used if u.service in OURS], FLOOR_OURS),
                    ("all of orc up", used, FLOOR_ALL),
                ):
                    rows.append(_row(_sum(title, of), held) | {"floor, % of a core": f"≤ {floor:g}"})
                    if _sum(title, of).percent > floor:
                        missed.append(f"{title} with {held} held tasks")
                del futures
    table.show(f"orc up at rest, {said.seconds} s, {os.cpu_count()} cores", rows, said.json)
    for what in missed:
        print(f"over its floor: {what}")
    return 1 if missed else 0


def _held(client: Client) -> int:
    return int(client.sync(client.scheduler.orc_state)["tasks"])


def _sum(title: str, used: list[Usage]) -> Usage:
    return Usage(
        service=title,
        cpu_seconds=sum(u.cpu_seconds for u in used),
        wakeups=sum(u.wakeups for u in used),
        memory_mib=sum(u.memory_mib for u in used),
        seconds=used[0].seconds,
    )


def _row(usage: Usage, held: int) -> dict[str, Any]:
    return {
        "process": usage.service,
        "held tasks": held,
        "CPU s": usage.cpu_seconds,
        "% of a core": usage.percent,
        "wake-ups a second": usage.wakeups / usage.seconds,
        "memory MiB": round(usage.memory_mib),
        "floor, % of a core": "",
    }


if __name__ == "__main__":
    sys.exit(main())
