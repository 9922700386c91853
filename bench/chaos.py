"""Governed tasks on real local pools, while their workers and servers are killed: is anything lost or done twice?

`python -m bench.chaos [--tasks 10000] [--seeds 3] [--every 5] [--json FILE]`

Each seed is an `orc up` of its own, in a folder of its own. Each `--every` seconds a random spot worker gets SIGKILL;
each third time, until each has happened `--rounds` times, another fault happens instead: a worker gets SIGTERM, or
SIGSTOP for a while or for longer than the scheduler waits for it, the governor or the Prefect server or the Dask
scheduler is killed. Then everything is counted. Exits with 1 when a floor is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import select

from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from bench import table
from bench.bodies import mix
from harness.instance import Instance, two_pools
from harness.processes import ROOT
from harness.wait import within

LAYERS = 5
POOLS = two_pools("5s")
#: seconds the scheduler waits for a worker that is silent
TTL = 6
#: ends that a task may have once
FINAL = ("done", "failed", "cancelled")
#: the last outcome of a task that ended well
ENDED = ("done", "cached", "unknown")


# ---------------------------------------------------------------------- the flow, in a process of its own
def name_of(layer: int, at: int) -> str:
    """A task's name, and its file's."""
    return f"{layer}-{at}"


def expected(tasks: int) -> int:
    """The flow's result without a fault."""
    width, above = tasks // LAYERS, list[list[int]]()
    values: list[int] = []
    above = [[] for _ in range(width)]
    for layer in range(LAYERS):
        values = [mix(name_of(layer, at), above[at]) for at in range(width)]
        above = [[values[at], values[(at * 7 + 1) % width]] for at in range(width)]
    return sum(values)


def flow_of(folder: str, tasks: int, seconds: float) -> int:
    """Run it, governed."""
    from prefect import flow, unmapped

    from agent import GovernedTaskRunner
    from bench.bodies import mixed

    @flow(name="chaos", task_runner=GovernedTaskRunner())
    def chaos(count: int) -> int:
        width = count // LAYERS
        above: list[list[Any]] = [[] for _ in range(width)]
        futures: Any = []
        for layer in range(LAYERS):
            names = [name_of(layer, at) for at in range(width)]
            futures = mixed.map(unmapped(folder), names, unmapped(seconds), above)
            above = [[futures[at], futures[(at * 7 + 1) % width]] for at in range(width)]
        return sum(futures.result())

    return chaos(tasks)


# ---------------------------------------------------------------------- what is killed
class Home(Instance):
    """An ORC without a graph, whose scheduler gives a silent worker up soon; a folder for the marks of the bodies."""

    def __init__(self, folder: Path, pools: str = POOLS) -> None:
        super().__init__(folder, pools, ORC_GRAPH_URL="off", ORC_WORKER_TTL=f"{TTL}s")
        (folder / "ran").mkdir()
        #: none of the repository's deployments is registered
        self.cwd = folder


class Lives:
    """How long worker processes lived, as an onlooker sees it."""

    def __init__(self, home: Home) -> None:
        self.home, self.seen = home, dict[int, list[float]]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            for process in self.home.workers().values():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if process.status() != psutil.STATUS_ZOMBIE:
                        now = time.time()
                        self.seen.setdefault(process.pid, [now, now])[1] = now

    def total(self) -> float:
        """Seconds, of all together."""
        self._stop.set()
        self._thread.join()
        return sum(last - first for first, last in self.seen.values())


def _signal(process: psutil.Process, *numbers: int) -> None:
    for number in numbers:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@dataclass
class Faults:
    """Makes them, at their times, until told to stop."""

    home: Home
    every: float
    #: times that each of the other faults happens
    rounds: int
    chance: random.Random
    made: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _later: list[tuple[float, psutil.Process]] = field(default_factory=list)

    def spot(self, what: str, *numbers: int) -> Callable[[], None]:
        """A signal to a random spot worker."""

        def send() -> None:
            if workers := self.home.workers("spot"):
                name = self.chance.choice(sorted(workers))
                _signal(workers[name], *numbers)
                self._made(what, name)

        return send

    def stopped(self, what: str, seconds: float) -> Callable[[], None]:
        """A spot worker that stands still for so long."""

        def send() -> None:
            if workers := self.home.workers("spot"):
                name = self.chance.choice(sorted(workers))
                _signal(workers[name], signal.SIGSTOP)
                self._later.append((time.monotonic() + seconds, workers[name]))
                self._made(what, name)

        return send

    def service(self, name: str) -> Callable[[], None]:
        """A service that is killed, and started again by the supervisor."""

        def send() -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.home.services()[name], signal.SIGKILL)
                self._made(f"{name} killed", "")

        return send

    def _made(self, what: str, name: str) -> None:
        self.made[what] += 1
        self.log.append(f"{time.time():.1f} {what} {name}")

    def run(self) -> None:
        """Until `stop`."""
        kill = self.spot("SIGKILL to a spot worker", signal.SIGKILL)
        others = [
            self.spot("SIGTERM to a spot worker", signal.SIGTERM),
            self.stopped("SIGSTOP for 3 s", 3.0),
            self.stopped(f"SIGSTOP for {2 * TTL} s", 2.0 * TTL),
            self.stopped("SIGSTOP for good", float("inf")),
            self.service("governor"),
            self.service("prefect-server"),
            self.service("dask-scheduler"),
        ]
        others *= self.rounds
        self.chance.shuffle(others)
        at, number = time.monotonic() + self.every, 0
        while not self._stop.wait(0.1):
            now = time.monotonic()
            for due, process in [each for each in self._later if each[0] <= now]:
                self._later.remove((due, process))
                _signal(process, signal.SIGCONT)
            if now >= at:
                at, number = now + self.every, number + 1
                (others.pop() if number % 3 == 0 and others else kill)()

    def stop(self) -> None:
        """No more of them; what stands still goes on, but for what does so for good."""
        self._stop.set()
        for due, process in self._later:
            if due < float("inf"):
                _signal(process, signal.SIGCONT)


# ---------------------------------------------------------------------- what is counted
def ends(ledger: Ledger, names: int) -> tuple[int, int, Counter[str]]:
    """Placements without an outcome; task runs that do not end in one final outcome; outcomes by result."""
    with ledger.reading() as db:
        p, o = t.placement, t.outcome
        joined = p.outerjoin(o, (o.c.chain == p.c.chain) & (o.c.placement == p.c.id))
        rows = db.execute(select(p.c.key, o.c.result).select_from(joined).order_by(p.c.id)).all()
    of: dict[str, list[str]] = {}
    for key, result in rows:
        of.setdefault(key, []).append("open" if result is None else t.RESULTS[result])
    counted = Counter(result for results in of.values() for result in results)
    # a result that was lost from memory is read from storage by another placement: `cached` after `done` is no second
    # end; what a scheduler that was killed did not tell any more is `unknown`, and is not placed again where the flow
    # has its result
    sent = {key: [x for x in results if x not in ("not sent", "withdrawn")] for key, results in of.items()}
    # and when the flow has ended, nobody wants a lost result back any more: what reads it again may be cancelled, or
    # taken away with its worker, for good
    for key, results in sent.items():
        first = next((at for at, result in enumerate(results) if result in ENDED), len(results))
        sent[key] = [x for at, x in enumerate(results) if at <= first or x not in ("cancelled", "preempted")]
    wrong = [k for k, r in sent.items() if not r or r[-1] not in ENDED or sum(x in FINAL for x in r) > 1]
    return counted.pop("open", 0), len(wrong) + max(0, names - len(of)), counted


def lease_seconds(ledger: Ledger) -> tuple[float, int]:
    """Of all leases together, and how many are open."""
    leases = ledger.leases()
    closed = [x for x in leases if x.granted_ms is not None and x.ended_ms is not None]
    return sum(x.ended_ms - x.granted_ms for x in closed) / 1000, sum(x.ended_ms is None for x in leases)  # type: ignore[operator,misc]


def started(folder: Path) -> tuple[int, int, int]:
    """Bodies that began, tasks that began more than once, bodies that began though their result was stored."""
    lines = [file.read_text().splitlines() for file in folder.iterdir()]
    return (
        sum(map(len, lines)), sum(len(each) > 1 for each in lines),
        sum(line.endswith(" 1") for each in lines for line in each),
    )  # fmt: skip


def unfinished(home: Home, tasks: int) -> tuple[int, int, int]:
    """Task runs there are; those, and flow runs, that are in no terminal state."""
    final = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}
    try:
        count = home.api("/task_runs/count", {})
        return (
            count,
            max(tasks, count) - home.api("/task_runs/count", {"task_runs": final}),
            home.api("/flow_runs/count", {}) - home.api("/flow_runs/count", {"flow_runs": final}),
        )
    except httpx.HTTPError:
        return 0, tasks, 1


def run(
    folder: Path,
    tasks: int,
    every: float,
    seconds: float,
    seed: int,
    rounds: int = 1,
    patience: float = 1500,
    lease_percent: float = 1.0,
) -> list[dict[str, Any]]:
    """One seed: its rows, `what`, `floor`, `measured`, `good`.

    A worker that dies while the governor is away ends its lease when the next one looks, a few seconds late; in a
    short run that is more than one hundredth of all, and `lease_percent` says how much may be.
    """
    home = Home(folder)
    tasks -= tasks % LAYERS
    with home.up():
        lives, faults = Lives(home), Faults(home, every, rounds, random.Random(seed))
        making = threading.Thread(target=faults.run, daemon=True)
        begin = time.monotonic()
        with (folder / "flow.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.chaos", "--flow", json.dumps([str(folder / "ran"), tasks, seconds])],
                env=home.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
            within(lambda: any((folder / "ran").iterdir()), 120, 0.5)
            making.start()
            try:
                out, _ = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                process.kill()
                out, _ = process.communicate()
        took = time.monotonic() - begin
        faults.stop()
        making.join()
        result = json.loads(out.strip().splitlines()[-1]) if process.returncode == 0 else None
        ledger = home.ledger()
        within(lambda: unfinished(home, tasks)[1:] == (0, 0), 240, 0.5)
        runs, open_tasks, open_flows = unfinished(home, tasks)
        # workers end when they have been idle for a while; then every lease is closed
        within(lambda: not home.workers() and not lease_seconds(ledger)[1], 60, 0.5)
        lived = lives.total()
        leased, open_leases = lease_seconds(ledger)
        causes = Counter(str(lease.end or "open") for lease in ledger.leases())
        unsettled, wrong, counted = ends(ledger, tasks)
        faulty = home.faults()
        ledger.close()
    within(lambda: not home.left(), 15, 0.5)
    (folder / "faults.log").write_text("\n".join(faults.log))
    bodies, again, stored = started(folder / "ran")
    off = abs(leased - lived) / max(lived, 1e-9)

    def row(what: str, floor: str, measured: Any, good: bool = True) -> dict[str, Any]:
        return {"what": what, "floor": floor, "measured": measured, "good": good}

    return [
        row("tasks, and seconds to the result", "", f"{tasks:,} in {took:.0f} s"),
        row("faults made", "", ", ".join(f"{count} × {what}" for what, count in sorted(faults.made.items()))),
        row(
            "the result is the one without faults",
            "yes",
            "yes" if result == expected(tasks) else f"no: {result}",
            result == expected(tasks),
        ),
        row("bodies that began; tasks begun more than once", "", f"{bodies:,}; {again:,}"),
        row("bodies begun though their result was stored", "0", stored, not stored),
        row("outcomes in the ledger", "", ", ".join(f"{count:,} {name}" for name, count in counted.most_common())),
        row("placements without an outcome", "0", unsettled, not unsettled),
        row("tasks without exactly one final outcome", "0", wrong, not wrong),
        row(
            "faults of the ledger, with replay",
            "0",
            len(faulty) if not faulty else f"{len(faulty)}: {faulty[0]}",
            not faulty,
        ),
        row("task runs on the Prefect server", f"{tasks:,}", runs, runs == tasks),
        row("task runs in no terminal state there", "0", open_tasks, not open_tasks),
        row("flow runs in no terminal state there", "0", open_flows, not open_flows),
        row("leases by cause of their end", "", ", ".join(f"{count} {cause}" for cause, count in causes.most_common())),
        row("leases left open", "0", open_leases, not open_leases),
        row(
            f"leases against workers' lives ({lived:.0f} s, {len(lives.seen)} workers)",
            f"≤ {lease_percent:g} %",
            f"{100 * off:.2f} %",
            100 * off <= lease_percent,
        ),
        row("processes left", "0", len(home.left()), not home.left()),
    ]


def main() -> None:
    """Each seed after the other."""
    parser = argparse.ArgumentParser(description="chaos")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults")
    parser.add_argument("--rounds", type=int, default=2, help="times that each of the other faults happens")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each body")
    parser.add_argument("--keep", type=Path, help="folder for ledgers and logs, kept")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--flow", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.flow:
        print(json.dumps(flow_of(*json.loads(said.flow))))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(said.first, said.first + said.seeds):
            found = run(
                (said.keep or Path(folder)) / f"seed-{seed}", said.tasks, said.every, said.seconds, seed, said.rounds
            )
            table.show(
                f"seed {seed}",
                [{k: v if k != "good" else "✓" if v else "✗" for k, v in row.items()} for row in found],
                None,
            )
            rows += [{"seed": seed, **row} for row in found]
    if said.json is not None:
        said.json.write_text(json.dumps({"title": "chaos", "rows": rows}, indent=1))
    sys.exit(any(not row["good"] for row in rows))


if __name__ == "__main__":
    main()
