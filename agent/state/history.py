"""Statistics rebuilt from the ledger: the same folds over the same facts as live, in the order in which they became true. Pure."""

from __future__ import annotations

from collections.abc import Iterable
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
    fold = Leases(state.fleet.pools, state.statistics, Tally())
    fold.retry_most_ms = state.fleet.leases.retry_most_ms
    happened: list[tuple[int, int, str, Lease]] = []
    for lease in leases:
        if lease.pool not in state.fleet.pools:
            continue
        happened.append((lease.asked_ms, 0, "asked", lease))
        if lease.granted_ms is not None and not _observed(lease):
            happened.append((lease.granted_ms, 1, "granted", lease))
        if lease.ready_ms is not None:
            happened.append((lease.ready_ms, 2, "ready", lease))
        if lease.ended_ms is not None:
            happened.append((lease.ended_ms, 3, "ended", lease))
    for at_ms, _, what, lease in sorted(happened, key=lambda event: (event[0], event[3].id, event[1])):
        if what == "asked":
            observed = _observed(lease)
            fold.open[lease.id] = replace(
                lease,
                granted_ms=lease.granted_ms if observed else None,
                ready_ms=None,
                ended_ms=None,
                end=None,
                cause=OBSERVED if observed else "asked",
            )
        elif what == "granted":
            fold.granted(lease.id, at_ms)
        elif what == "ready":
            fold.ready(lease.id, at_ms)
        elif lease.end == EndCause.REFUSED:
            fold.refused(lease.id, at_ms, lease.cause)
        elif lease.end == EndCause.FAULT:
            fold.failed(lease.id, at_ms, lease.cause.removeprefix("failed: "))
        else:
            fold.end(lease.id, at_ms, lease.end or EndCause.UNWATCHED, lease.cause)
    for status in state.fleet.pools.values():
        status.starting.clear()


def _observed(lease: Lease) -> bool:
    return lease.cause == OBSERVED or lease.end == EndCause.LEFT
