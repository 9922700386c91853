"""How fast the planner decides, how much a round and a task add to the ledger, and that memory stays flat.

`python -m bench.plan [--decisions N] [--json FILE]`
"""

from __future__ import annotations

import gc
import math
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from agent.governor.governor import Governor
from agent.governor.rulebook import Rulebook
from agent.ledger.ledger import Ledger
from agent.model.events import SpecAdded, TaskEnded, TaskReady, WorkerJoined
from agent.model.needs import Needs
from agent.model.outcomes import Result
from agent.model.pools import Pool, PriceStep
from agent.model.snapshot import Group, Policy, PoolState, Snapshot, Statistic, Worker
from agent.planner.plan import VERSION, plan
from agent.scheduler import protocol
from agent.state import snapshot as snapshots
from agent.state.cluster import ClusterState
from agent.state.events import apply
from agent.state.tasks import BoundTask
from bench import table

POOLS, RULES, GROUPS, TASKS = 30, 20, 50, 100_000


def pools(count: int) -> tuple[PoolState, ...]:
    """Spot and on-demand pools with two idle workers of four slots each."""
    out = []
    for n in range(count):
        usd = 100_000 + 7_000 * n
        pool = Pool(
            name=f"pool{n}",
            market="spot" if n % 2 else "on-demand",
            cpus=4,
            memory_mib=16_384,
            slots=4,
            max_workers=50,
            startup_ms=60_000,
            provider="local",
            price=(PriceStep(since_ms=0, usd_micros_per_hour=usd),),
        )
        workers = tuple(
            Worker(
                name=f"pool{n}-{w}",
                address=f"tcp://{n}.{w}",
                slots=4,
                bound=0,
                cpus_free=4,
                memory_free_mib=16_384,
                gpus_free=0,
                idle_since_ms=999_000,
                launched_ms=0,
            )
            for w in range(2)
        )
        out.append(
            PoolState(
                pool=pool, usd_micros_per_hour=usd, workers=workers, startup_ms=60_000, hazard_per_hour=0.2 * (n % 2)
            )
        )
    return tuple(out)


def groups(count: int, tasks: int) -> tuple[Group, ...]:
    """Groups of interruptible tasks of known runtime."""
    return tuple(
        Group(
            id=f"group{n:03}",
            task_class=f"class{n}",
            name=f"class{n}",
            needs=Needs(interruptible=True, memory_mib=1024),
            root_run="root",
            flow_run="flow",
            ready=tasks // count,
            since_ms=n,
        )
        for n in range(count)
    )


def snapshot(states: tuple[PoolState, ...], waiting: tuple[Group, ...]) -> Snapshot:
    """With history of every class."""
    known = tuple(
        Statistic(task_class=g.task_class, pool="", n=50, log_mean=math.log(30_000), log_m2=5.0) for g in waiting
    )
    return Snapshot(
        now_ms=1_000_000,
        planner=VERSION,
        rules_digest="",
        seed=0,
        policy=Policy(),
        pools=states,
        groups=waiting,
        statistics=known,
    )


def _now() -> tuple[float, float]:
    """Wall clock and this thread's own CPU, s: other processes do not count in the latter."""
    return time.perf_counter(), time.thread_time()


def _since(begin: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = _now()
    return wall - begin[0], cpu - begin[1]


def _latencies(what: str, times: list[tuple[float, float]], quantile: float, floor: str) -> list[dict[str, Any]]:
    """Median and a quantile of wall and of own CPU, ms."""
    out = []
    for n, clock in enumerate(("", ", own CPU")):
        values = sorted(pair[n] for pair in times)
        for q, said in ((0.5, ""), (quantile, floor)):
            name = "median" if q == 0.5 else f"p{100 * q:.0f}"
            measured = values[int(len(values) * q)] * 1000
            out.append({"what": f"{what}: {name} ms{clock}", "floor": said, "measured": measured})
    return out


def rules(folder: Path) -> Rulebook:
    """Twenty rules, of which eleven match."""
    text = "rules:\n" + "".join(
        f"  - {{name: r{n}, reason: because, "
        f"when: {{cpus: {{{'at_least' if n < 11 else 'above'}: {0 if n < 11 else 99}}}}}, "
        f"then: {{{'prefer' if n % 2 else 'forbid'}: {{pool: pool{n}}}}}}}\n"
        for n in range(RULES)
    )
    (folder / "rules.yaml").write_text(text)
    return Rulebook([folder / "rules.yaml"])


def decisions(count: int, rulebook: Rulebook) -> list[dict[str, Any]]:
    """One group's decision, rules and plan: latencies, and memory over all of them."""
    shot = snapshot(pools(POOLS), groups(1, 5))
    (one,) = shot.groups
    facts = {"cpus": 1, "gpu": "no", "priority": "normal", "interruptible": True}
    times: list[tuple[float, float]] = []
    process, before = psutil.Process(), 0
    for n in range(count):
        if n == count // 10:
            gc.collect()
            before = process.memory_info().rss
        begin = _now()
        verdicts = rulebook.rules.judge(facts)
        plan(replace(shot, groups=(replace(one, verdicts=verdicts),)))
        times.append(_since(begin))
        if len(times) > 50_000:
            del times[:25_000]
    gc.collect()
    grown = (process.memory_info().rss - before) / 2**20
    return [
        *_latencies(f"a group's decision, {RULES} rules, {POOLS} pools", times, 0.99, "≤ 1"),
        {"what": f"memory grown over {count:,} decisions, MiB", "floor": "flat", "measured": grown},
    ]


def bulk() -> list[dict[str, Any]]:
    """100,000 ready tasks in 50 groups, planned at once."""
    shot = snapshot(pools(POOLS), groups(GROUPS, TASKS))
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        plan(shot)
        times.append(time.perf_counter() - begin)
    return [
        {"what": f"{TASKS:,} ready tasks in {GROUPS} groups planned, s", "floor": "≤ 1", "measured": sorted(times)[2]}
    ]


def replan(events: int) -> list[dict[str, Any]]:
    """One event on a 100,000-task graph, up to the next plan: the view, the graph and the plan, against a full pass
    each tenth.
    """
    r = random.Random(1)
    five = tuple(replace(state.pool, slots=64, cpus=64) for state in pools(6))
    view = ClusterState(five, lambda facts: (), frozenset())
    needs = {"interruptible": True}
    for n in range(GROUPS):
        run = {"flow_run": "f", "root_run": "r", "deadline_ms": 10**10}
        apply(
            view,
            SpecAdded(n, {"prefix": f"class{n}", "says": {protocol.NEEDS: needs, protocol.RUN: run}, "resources": {}}),
            0,
        )
    # fifty layers of two thousand tasks, each task behind three of the layer before
    wide = TASKS // GROUPS
    tasks = [
        (n, n // wide, [n - n % wide - wide + r.randrange(wide) for _ in range(3)] if n >= wide else [])
        for n in range(TASKS)
    ]
    begin = time.perf_counter()
    view.submitted(tasks)
    built = time.perf_counter() - begin
    (graph,) = view.graphs.of_run.values()
    children: dict[int, list[int]] = {}
    for key, _, parents in tasks:
        for parent in parents:
            children.setdefault(parent, []).append(key)
    waits = {key: len(set(parents)) for key, _, parents in tasks}
    for pool in five:
        joined = {"address": pool.name, "name": f"{pool.name}-0", "pool": pool.name, "slots": 64, "memory_mib": 16_384}
        apply(view, WorkerJoined({**joined, "resources": {}, "draining": False, "paused": False, "host": ""}), 1)
    now = 1_000
    for key in range(wide):
        apply(view, TaskReady(key, 0, 0, now), now)

    def planned() -> tuple[Snapshot, Any]:
        shot = snapshots.take(view, now, Policy(), view.live_groups(), graphs=True)
        return shot, plan(shot)

    def send(shot: Snapshot, made: Any) -> None:
        named = {g.id: g for g in shot.groups}
        for bind in made.binds:
            load = view.fleet.load(named[bind.group], bind.pool)
            for task in view.waiting.first(bind.group, bind.count):
                view.sent(BoundTask(task, 0, bind.group, bind.pool, bind.pool, now, 30_000, 1, load))

    send(*planned())
    times: list[tuple[float, float]] = []
    unequal = 0
    for n in range(events):
        key = r.choice(list(view.bound))
        now += r.randint(1, 2_000)
        begin = _now()
        apply(view, TaskEnded(key, Result.DONE, view.bound[key].address, now - 30_000, now, 0), now)
        for child in dict.fromkeys(children.get(key, ())):
            waits[child] -= 1
            if not waits[child]:
                apply(view, TaskReady(child, child // wide, 0, now), now)
        shot, made = planned()
        times.append(_since(begin))
        view.ended.clear()
        if n % 10 == 0:
            fresh = graph.recomputed()
            again = tuple(
                replace(run, work_ms=fresh.work_ms, path_ms=fresh.path_ms, tasks=fresh.tasks) for run in shot.runs
            )
            unequal += fresh.figures() != graph.figures() or plan(replace(shot, runs=again)) != made
        send(shot, made)
    return [
        {"what": f"a graph of {TASKS:,} tasks taken in, s", "floor": "≤ 5", "measured": built},
        *_latencies(f"a replan after one event on it, {events:,} events", times, 0.95, "≤ 5"),
        {"what": "plans that differ from a full pass's", "floor": "0", "measured": unequal},
    ]


def ledger(folder: Path, rulebook: Rulebook) -> list[dict[str, Any]]:
    """What rounds and tasks add to the ledger: the governor's own code, against an extension that answers yes."""
    import asyncio

    made = Ledger(f"sqlite:///{folder}/ledger.db", "bench")
    five = tuple(replace(state.pool, slots=64, cpus=64, provider=None) for state in pools(5))
    governor = Governor(
        scheduler="",
        ledger=made,
        pools=five,
        budgets=(),
        rulebook=rulebook,
        policy=Policy(),
        providers={},
        mode="govern",
        holder="bench",
    )

    async def ask(handler: str, **said: Any) -> dict[str, Any]:
        return {"bound": [[f"tcp://{bind['pool']}"] * len(bind["keys"]) for bind in said.get("binds", ())]}

    governor.scheduler_client.call = ask  # type: ignore[method-assign]

    async def story() -> tuple[float, float]:
        await governor.take()
        view = governor.state
        apply(
                view,
            SpecAdded(0,
                {
                    "prefix": "work",
                    "says": {protocol.NEEDS: {"interruptible": True}, protocol.RUN: {"flow_run": "f", "root_run": "r"}},
                    "resources": {},
                },
            ),
            0,
        )
        for pool in five:
            apply(
                view,
                WorkerJoined({
                        "address": f"tcp://{pool.name}",
                        "name": f"{pool.name}-0",
                        "pool": pool.name,
                        "slots": 64,
                        "memory_mib": 16_384,
                        "resources": {},
                        "draining": False,
                        "paused": False,
                        "host": "",
                    },
                ),
                0,
            )
        await _rounds(governor, 50, 4)
        empty = _size(folder)
        await _rounds(governor, 400, 4)
        few = _size(folder)
        await _rounds(governor, 400, 40)
        many = _size(folder)
        a_task = (many - few - (few - empty)) / (400 * 36)
        return (few - empty) / 400 - 4 * a_task, a_task

    a_round, a_task = asyncio.run(story())
    made.close()
    return [
        {"what": "the ledger grows by a round, bytes", "floor": "≤ 1,000", "measured": round(a_round)},
        {"what": "and by a task, bytes, its outcome included", "floor": "≤ 200", "measured": round(a_task)},
    ]


_keys = 0


async def _rounds(governor: Governor, count: int, tasks: int) -> None:
    """Rounds in which `tasks` tasks become ready, are bound, and those of the round before end."""
    global _keys
    for _ in range(count):
        now = governor.clock()
        for key in list(governor.state.bound):
            ended = TaskEnded(key, Result.DONE, governor.state.bound[key].address, now - 2000, now - 100, 10)
            apply(governor.state, ended, now)
        for _ in range(tasks):
            _keys += 1
            apply(governor.state, TaskReady(f"work-{_keys:032x}", 0, 0, now), now)
        await governor._round()


def _size(folder: Path) -> int:
    with Ledger(f"sqlite:///{folder}/ledger.db", "bench").reading() as db:
        db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        pages: int = (
            db.exec_driver_sql("PRAGMA page_count").scalar_one()
            - db.exec_driver_sql("PRAGMA freelist_count").scalar_one()
        )
        return pages * int(db.exec_driver_sql("PRAGMA page_size").scalar_one())


def main() -> None:
    """Run all."""
    said = table.arguments("planner and ledger", decisions=20_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rulebook = rules(folder)
        table.show(
            "the planner and the ledger",
            [*decisions(said.decisions, rulebook), *bulk(), *replan(1_000), *ledger(folder, rulebook)],
            said.json,
        )


if __name__ == "__main__":
    main()
