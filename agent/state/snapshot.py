"""The input of one planning round, read from the state: the same for govern, shadow and the simulator. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.market import MarketBeliefs
from agent.model.snapshot import Budget, Group, Policy, PoolState, Run, Running, Snapshot, Usage
from agent.planner.plan import VERSION
from agent.state.cluster import ClusterState


def take(  # noqa: PLR0913
    state: ClusterState,
    now_ms: int,
    policy: Policy,
    groups: Sequence[Group],
    *,
    running: Sequence[Running] = (),
    budgets: Sequence[Budget] = (),
    rules_digest: str = "",
    graphs: bool = False,
    seed: int = 0,
) -> Snapshot:
    """Everything that a plan for these groups, and for what runs, is made from.

    Args:
        graphs: what is not in the runs' graphs is not known to come.
    """
    classes = {group.task_class for group in (*groups, *(task.group for task in running))}
    return Snapshot(
        now_ms=now_ms,
        planner=VERSION,
        rules_digest=rules_digest,
        seed=seed,
        policy=policy,
        pools=pools(state, now_ms),
        groups=tuple(groups),
        statistics=state.statistics.of_classes(classes),
        budgets=tuple(budgets),
        usage=_usage(state, groups),
        runs=_runs(state, now_ms),
        running=tuple(running),
        wanted_workers=state.fleet.wanted,
        wanted_why=state.fleet.wanted_why,
        graphs=graphs,
        markets=_markets(state, groups, running, now_ms),
    )


def pools(state: ClusterState, now_ms: int) -> tuple[PoolState, ...]:
    """Every declared pool, and `default` when workers belong to none."""
    ends: dict[str, list[int]] = {}
    for bound in state.bound.values():
        ends.setdefault(bound.address, []).append(max(bound.at_ms + bound.expected_ms, now_ms))
    return state.fleet.states(now_ms, ends)


def _markets(
    state: ClusterState, groups: Sequence[Group], running: Sequence[Running], now_ms: int
) -> tuple[MarketBeliefs, ...]:
    """What is believed of the zones, where it may matter."""
    if any(group.may_be_long for group in groups) or any(task.group.may_be_long for task in running):
        return state.fleet.markets.value(now_ms)
    return ()


def _runs(state: ClusterState, now_ms: int) -> tuple[Run, ...]:
    """Runs whose graph is known, in order of their names."""
    ends: dict[str, int] = {}
    here: dict[str, int] = {}
    for name, ready in state.waiting.by_group.items():
        run = state.groups.known[name].root_run
        here[run] = here.get(run, 0) + len(ready)
    for bound in state.bound.values():
        run = state.specs[bound.task.spec].root_run
        here[run] = here.get(run, 0) + 1
        ends[run] = min(ends.get(run, 2**62), max(now_ms, bound.at_ms + bound.expected_ms))
    return state.graphs.runs(here, ends)


def _usage(state: ClusterState, groups: Sequence[Group]) -> tuple[Usage, ...]:
    """Who has the workers now, in order of teams and runs; nothing when one run alone waits."""
    if len({(group.team, group.root_run) for group in groups}) < 2:
        return ()
    taken: dict[tuple[str, str], int] = {}
    for bound in state.bound.values():
        spec = state.specs[bound.task.spec]
        taken[spec.team, spec.root_run] = taken.get((spec.team, spec.root_run), 0) + 1
    return tuple(Usage(team=team, root_run=run, slots=n) for (team, run), n in sorted(taken.items()))
