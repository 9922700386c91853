"""What an end means: whether a task runs again, whom a loss is charged to, what it cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.model.records import Ended
from agent.model.units import cost_micros
from agent.scheduler import protocol as p
from agent.state.fleet import LiveWorker
from agent.state.tasks import BoundTask

#: results after which a task runs again
UNDONE = ("preempted", "lost", p.LEFT_EARLY, p.STARVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndVerdict:
    """What becomes of a task that ended on its worker."""

    #: as it goes on record
    result: str
    #: it does not run again
    over: bool = False
    #: it was taken away with its worker
    preempted: bool = False
    #: its worker died under it, without notice and not on the spot market: it may be what kills workers
    lost: bool = False
    out_of_memory: bool = False


def classify(result: str, live: LiveWorker | None, spot: bool) -> EndVerdict:
    """What an end means.

    Args:
        result: what the extension reports.
        live: the worker it ran on, where that is still known.
        spot: whether its pool is of the spot market.
    """
    if result == p.STARVED:
        return EndVerdict(result=result, out_of_memory=True)
    if result == p.LEFT_EARLY:
        # who leaves because it is slow was neither taken away nor lost
        return EndVerdict(result=result, preempted=live is None or live.counts.draining)
    if result == "lost":
        preempted = spot or (live is not None and live.noticed)
        return EndVerdict(result="preempted" if preempted else "lost", preempted=preempted, lost=not preempted)
    return EndVerdict(result=result, over=result != "withdrawn")


def ran_ms(bound: BoundTask, result: str, start_ms: int, stop_ms: int, now_ms: int) -> int:
    """How long it ran: as its worker says, else since it was sent where it is known to have begun; 0 otherwise."""
    if start_ms:
        return stop_ms - start_ms
    return now_ms - bound.at_ms if result in (*UNDONE, "failed") else 0


def ended(  # noqa: PLR0913
    bound: BoundTask,
    result: str,
    *,
    lease: int,
    start_ms: int,
    run_ms: int,
    worker_share: float,
    ran_in: str,
    spared_ms: int,
    items: int,
    lineage: Iterable[Any],
) -> Ended:
    """The outcome as it goes on record.

    Args:
        worker_share: the part of its worker's price that it is the cause of, 0 to 1.
    """
    return Ended(
        placement=bound.placement,
        result=result,
        lease=lease,
        start_ms=start_ms or bound.at_ms,
        run_ms=run_ms,
        usd_micros=cost_micros(bound.usd_micros_per_hour, run_ms * worker_share),
        ran_in=ran_in if ran_in != bound.pool else "",
        spared_ms=spared_ms if result == "done" else 0,
        items=items,
        lineage=tuple((str(verb), str(kind), str(at)) for verb, kind, at in lineage),
    )
