"""What an end means: whether a task runs again, whom a loss is charged to, what it cost. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.model.outcomes import Result
from agent.model.records import Ended
from agent.model.units import cost_micros
from agent.state.fleet import LiveWorker
from agent.state.tasks import BoundTask

#: results after which a task runs again
UNDONE = (Result.PREEMPTED, Result.LOST, Result.MOVED, Result.OUT_OF_MEMORY)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndVerdict:
    """What becomes of a task that ended on its worker."""

    #: as it goes on record
    result: Result
    #: it does not run again
    over: bool = False
    #: it was taken away with its worker
    preempted: bool = False
    #: its worker died under it, without notice and not on the spot market: it may be what kills workers
    lost: bool = False
    out_of_memory: bool = False


#: what is so whoever the worker was; made once, for every task comes by here
_VERDICTS: dict[Result, EndVerdict] = {
    result: EndVerdict(
        result=result, over=result not in (*UNDONE, Result.WITHDRAWN), out_of_memory=result is Result.OUT_OF_MEMORY
    )
    for result in Result
    if result not in (Result.MOVED, Result.LOST)
}


def classify(result: Result, live: LiveWorker | None, spot: bool) -> EndVerdict:
    """What an end means.

    Args:
        result: what the extension reports.
        live: the worker it ran on, where that is still known.
        spot: whether its pool is of the spot market.
    """
    if (verdict := _VERDICTS.get(result)) is not None:
        return verdict
    if result is Result.MOVED:
        # who leaves because it is slow was neither taken away nor lost
        return EndVerdict(result=result, preempted=live is None or live.counts.draining)
    preempted = spot or (live is not None and live.noticed)
    return EndVerdict(result=Result.PREEMPTED if preempted else Result.LOST, preempted=preempted, lost=not preempted)


def ran_ms(bound: BoundTask, result: Result, start_ms: int, stop_ms: int, now_ms: int) -> int:
    """How long it ran: as its worker says, else since it was sent where it is known to have begun; 0 otherwise."""
    if start_ms:
        return stop_ms - start_ms
    return now_ms - bound.at_ms if result in (*UNDONE, Result.FAILED) else 0


def ended(  # noqa: PLR0913
    bound: BoundTask,
    result: Result,
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
        spared_ms=spared_ms if result is Result.DONE else 0,
        items=items,
        lineage=tuple((str(verb), str(kind), str(at)) for verb, kind, at in lineage) if lineage else (),
    )
