"""Statistics rebuilt from the ledger: the same folds over the same facts as live, in the order in which they became
true. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from agent.model.leases import OBSERVED, EndCause, Lease
from agent.model.records import Execution
from agent.state.cluster import QUIET_MS, ClusterState
from agent.state.leases import Leases
from agent.state.tally import Tally


def learn(state: ClusterState, executions: Iterable[Execution], leases: Iterable[Lease]) -> None:
    """Take in the past of a cluster.

    Args:
        executions: oldest first.
        leases: of the pools, ended or not; the open ones are restored by whoever reads them.
    """
    _executions(state, executions)
    _leases(state, leases)


def _executions(state: ClusterState, executions: Iterable[Execution]) -> None:
    statistics, seen = state.statistics, dict[str, int]()
    for execution in executions:
        ended = execution.ended
        stop_ms = ended.start_ms + ended.run_ms
        for root in [root for root, last in seen.items() if stop_ms - last > QUIET_MS]:
            del seen[root]
            statistics.close_run(root)
        if execution.root_run:
            seen[execution.root_run] = max(stop_ms, seen.get(execution.root_run, 0))
        if ended.result == "done" and ended.run_ms:
            statistics.record_execution(execution.task_class, execution.pool, stop_ms, ended, execution.root_run)
    # what was seen lately may go on: it is closed when it stays quiet, as live
    state.root_seen_ms.update(seen)


def _leases(state: ClusterState, leases: Iterable[Lease]) -> None:
    """Play the leases' lives through the same machine as live, and keep what it taught and how pools stand."""
    fold = Leases(state.fleet.pools, state.statistics, Tally(), state.fleet.markets)
    fold.retry_most_ms = state.fleet.leases.retry_most_ms
    lives = [life for lease in leases if lease.pool in state.fleet.pools for life in _life(lease)]
    for at_ms, step, lease in sorted(lives, key=lambda life: (life[0], life[2].id, life[1])):
        _play(fold, lease, step, at_ms)
    for status in state.fleet.pools.values():
        status.starting.clear()


def _life(lease: Lease) -> Iterator[tuple[int, int, Lease]]:
    """When a lease was asked for, granted, ready and ended: instant, step, lease."""
    granted_ms = None if _observed(lease) else lease.granted_ms
    for step, at_ms in enumerate((lease.asked_ms, granted_ms, lease.ready_ms, lease.ended_ms)):
        if at_ms is not None:
            yield at_ms, step, lease


def _play(fold: Leases, lease: Lease, step: int, at_ms: int) -> None:
    if step == 0:
        observed = _observed(lease)
        fold.open[lease.id] = replace(
            lease,
            granted_ms=lease.granted_ms if observed else None,
            ready_ms=None,
            ended_ms=None,
            end=None,
            cause=OBSERVED if observed else "asked",
        )
        if observed:
            fold.markets.granted(lease.pool, at_ms)
    elif step == 1:
        fold.granted(lease.id, at_ms)
    elif step == 2:
        fold.ready(lease.id, at_ms)
    elif lease.end == EndCause.REFUSED:
        fold.refused(lease.id, at_ms, lease.cause)
    elif lease.end == EndCause.FAULT:
        fold.failed(lease.id, at_ms, lease.cause.removeprefix("failed: "))
    else:
        fold.end(lease.id, at_ms, lease.end or EndCause.UNWATCHED, lease.cause)


def _observed(lease: Lease) -> bool:
    # its cause is overwritten by its end; but nobody's launch is granted and ready in the instant it was asked for
    return lease.cause == OBSERVED or lease.end == EndCause.LEFT or lease.asked_ms == lease.granted_ms == lease.ready_ms
