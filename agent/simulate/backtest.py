"""What other rules would have done to the past.

What rules forbid is exact: they are evaluated over the facts of the groups as the ledger has them. Dollars and minutes
are *modelled*: the same executions with their observed runtimes, priced in the pool the rules leave; the interval is
the middle 90 % of a bootstrap over executions, so it says how much rests on few of them, not what the future will be.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import median

from agent.errors import LedgerError
from agent.ledger import history
from agent.ledger.reader import Reader
from agent.ledger.snapshots import manifest
from agent.model import codec
from agent.model.pools import Pool
from agent.model.records import FlowRun
from agent.model.snapshot import Group, PoolState
from agent.model.units import cost_micros
from agent.model.verdicts import Verdict
from agent.planner.feasible import against, blocked
from agent.planner.room import share
from agent.state import task_specs as specs
from agent.state.groups import Judge
from agent.state.task_specs import Facts, TaskSpec

#: resamples of an interval
RESAMPLES = 1_000
#: facts of rules that the ledger does not keep of a group
NOT_KEPT = frozenset({"input_mib"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A modelled figure and the middle 90 % of its resamples."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """Executions of a class in a pool that a rule would not have let there."""

    rule: str
    reason: str
    task_class: str
    pool: str
    #: the cheapest pool the rules leave; "": none, the tasks would have been refused
    instead: str
    executions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Backtest:
    """What the rules would have forbidden (exact), and what that would have cost (modelled)."""

    since_ms: int
    executions: int
    forbidden: tuple[Forbidden, ...]
    #: executions that would have been refused
    refused: int
    #: executions above whose threshold a person would have been asked, by rule
    asked: tuple[tuple[str, int], ...]
    #: modelled: micro-dollars and ms of work more than it was, negative when less
    usd_micros: Interval
    ms: Interval
    #: what limits the figures, in words
    limits: tuple[str, ...] = ()


@dataclass(slots=True)
class _Execution:
    group: Group
    run: FlowRun
    at_ms: int
    pool: str
    start_ms: int
    run_ms: int
    usd_micros: int


def backtest(reader: Reader, judge: Judge, reads: frozenset[str], since_ms: int) -> Backtest:
    """Evaluate rules over every execution since an instant. Raises LedgerError when there is none."""
    pools, found = history.declared_pools(reader), _executions(reader, since_ms, "govern")
    if not found:
        raise LedgerError("the ledger has no execution in that time; choose an earlier --since")
    forbidden: Counter[tuple[str, str, str, str, str]] = Counter()
    asked: Counter[str] = Counter()
    refused = 0
    ratios = _ratios(found)
    usd: list[float] = []
    ms: list[float] = []
    for x in found:
        verdicts = judge(_facts(x))
        pool = pools.get(x.pool)
        by = None if pool is None else against(verdicts, pool)
        for verdict in verdicts:
            if verdict.verb == "escalate" and (pool is None or verdict.selects(pool)):
                asked[verdict.rule] += verdict.above_usd_micros is None or x.usd_micros > verdict.above_usd_micros
        if by is None:
            continue
        instead = _cheapest(x.group, verdicts, pools)
        forbidden[by.rule, by.reason, x.group.task_class, x.pool, instead.name if instead else ""] += 1
        if instead is None:
            refused += 1
            continue
        longer = ratios.get((x.group.task_class, instead.name), 1.0) / ratios.get((x.group.task_class, x.pool), 1.0)
        part = share(x.group, PoolState(pool=instead, usd_micros_per_hour=0))
        run_ms = x.run_ms * longer
        usd.append(cost_micros(instead.price_at(x.start_ms), run_ms * part) - x.usd_micros)
        ms.append(run_ms - x.run_ms)
    limits = [f"the ledger does not keep {name}; rules that read it saw 0" for name in sorted(reads & NOT_KEPT)]
    return Backtest(
        since_ms=since_ms,
        executions=len(found),
        forbidden=tuple(
            Forbidden(rule=rule, reason=reason, task_class=c, pool=pool, instead=instead, executions=n)
            for (rule, reason, c, pool, instead), n in sorted(forbidden.items())
        ),
        refused=refused,
        asked=tuple(sorted((rule, n) for rule, n in asked.items() if n)),
        usd_micros=interval(usd),
        ms=interval(ms),
        limits=tuple(limits),
    )


def interval(values: Sequence[float], seed: int = 0) -> Interval:
    """A sum and the middle 90 % of the sums of resamples of the same size."""
    if not values:
        return Interval(value=0.0, low=0.0, high=0.0)
    random = Random(seed)
    sums = sorted(sum(random.choices(values, k=len(values))) for _ in range(RESAMPLES))
    return Interval(value=sum(values), low=sums[RESAMPLES // 20], high=sums[-RESAMPLES // 20])


def _cheapest(group: Group, verdicts: Sequence[Verdict], pools: Mapping[str, Pool]) -> Pool | None:
    """The cheapest pool that the rules leave and that can run the group, a slot's price an hour."""
    free = replace(group, verdicts=(), override=None)
    left = [
        pool
        for pool in pools.values()
        if against(verdicts, pool) is None and blocked(free, PoolState(pool=pool, usd_micros_per_hour=0)) is None
    ]
    return min(left, key=lambda pool: (pool.price[-1].usd_micros_per_hour / pool.slots, pool.name), default=None)


def _ratios(found: Sequence[_Execution]) -> dict[tuple[str, str], float]:
    """Median runtime of a class in a pool over its median everywhere."""
    everywhere: dict[str, list[int]] = defaultdict(list)
    here: dict[tuple[str, str], list[int]] = defaultdict(list)
    for x in found:
        everywhere[x.group.task_class].append(x.run_ms)
        here[x.group.task_class, x.pool].append(x.run_ms)
    return {key: median(runs) / median(everywhere[key[0]]) for key, runs in here.items()}


def _facts(x: _Execution) -> Facts:
    group = x.group
    spec = TaskSpec(
        number=0, name=group.name, task_class=group.task_class, needs=group.needs, flow_run=group.flow_run,
        root_run=group.root_run, flow=x.run.flow, deployment=x.run.deployment, team=group.needs.team or x.run.team,
        deadline_ms=group.deadline_ms,
    )  # fmt: skip
    return specs.facts(spec, 0, group.preemptions, group.losses, x.at_ms)


def _executions(reader: Reader, since_ms: int, mode: str) -> list[_Execution]:
    """Executions that ended well, each with its group as it was planned."""
    runs = {run.flow_run: run for run in reader.runs()}
    ended = history.ended_well(reader)
    named: Mapping[str, str] = {}
    groups: dict[str, Group] = {}
    out = []
    for record in reader.every_record():
        named = manifest(named, record.body.get("parts"))
        if record.at_ms < since_ms or record.mode != mode or record.kind != "round":
            continue
        for placed in reader.placements_of(record.seq):
            done = ended.get(placed.id)
            digest = named.get(f"group/{done.group}") if done is not None else None
            if done is None or digest is None:
                continue
            if digest not in groups:
                groups[digest] = codec.decode(Group, reader.part(bytes.fromhex(digest)))
            run = runs.get(placed.flow_run, FlowRun(no=0))
            out.append(
                _Execution(groups[digest], run, record.at_ms, placed.pool, done.start_ms, done.run_ms, done.usd_micros)
            )
    return out
