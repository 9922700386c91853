"""What the extension tells the governor: one small type for each kind of event, and their form on the wire.

They are named tuples: frozen like every value here, and hardly slower to make than the plain tuples that travel.
Two are made and read for each task, on the scheduler's loop and on the governor's; a frozen dataclass costs four
times as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from agent.errors import SchedulerError
from agent.model.outcomes import Result

#: an event on the wire: its kind, then its fields
WireEvent: TypeAlias = tuple[Any, ...]


# ---------------------------------------------------------------------- tasks
class SpecAdded(NamedTuple):
    """Tasks come that say something new."""

    number: int
    #: prefix, says, resources
    saying: Mapping[str, Any]


class GraphSubmitted(NamedTuple):
    """Tasks of runs with a deadline were submitted."""

    #: (key, spec number, keys it depends on), inputs first
    tasks: Sequence[tuple[Any, int, Sequence[Any]]]


class TaskReady(NamedTuple):
    """A held task's inputs are ready."""

    key: Any
    spec: int
    input_bytes: int
    since_ms: int
    #: governed keys it takes in, and how many more there are
    upstream: Sequence[Any] = ()
    more_upstream: int = 0
    #: in thousandths; the higher, the sooner
    dask_priority: int = 0


class TaskPlacedByDask(NamedTuple):
    """Dask sent a task to a worker that a governor only looks at."""

    key: Any
    spec: int
    input_bytes: int
    since_ms: int
    address: str


class TaskEnded(NamedTuple):
    """A task is no longer on the worker it was sent to."""

    key: Any
    result: Result
    #: of the worker it ran on, or was to
    address: str | None = None
    #: as the worker measured them; 0: it did not
    start_ms: int = 0
    stop_ms: int = 0
    output_bytes: int = 0
    #: (verb, kind, address) of what its body read and wrote
    lineage: Iterable[Sequence[str]] = ()
    #: when its last checkpoint was written, ms, and its bytes; empty: none
    checkpoint: Sequence[int] = ()


class TaskCheckpointed(NamedTuple):
    """A running task can leave its worker."""

    key: Any
    #: of its newest checkpoint; 0: nothing is saved yet
    at_ms: int
    nbytes: int


class TaskCancelled(NamedTuple):
    """A held task is not wanted any more."""

    key: Any


class TaskSeceded(NamedTuple):
    """A task left its thread to wait for work of its own: its slot is free meanwhile."""

    key: Any


class TaskPassedThrough(NamedTuple):
    """A task was not held."""

    key: Any
    why: str


class Restarted(NamedTuple):
    """`client.restart` ended every task."""

    #: held tasks it ended
    held: int


# ---------------------------------------------------------------------- workers
class WorkerJoined(NamedTuple):
    """A worker takes work, or is told of anew."""

    #: address, name, host, pool, slots, memory_mib, resources, draining, paused, others, other_slots
    worker: Mapping[str, Any]


class WorkerLeft(NamedTuple):
    """A worker is gone."""

    address: str
    #: "": it left by itself
    why: str = ""


class WorkerPaused(NamedTuple):
    """A worker takes no work now, because it is too full or closing; or goes on."""

    address: str
    paused: bool


class WorkerNoticed(NamedTuple):
    """A worker was told that it will be taken away."""

    address: str
    left_ms: int
    why: str


class WorkerBusy(NamedTuple):
    """A worker runs tasks and actors that no governor placed."""

    address: str
    others: int
    #: those of its slots that they take
    slots: int


class WorkersWanted(NamedTuple):
    """Somebody waits for workers, without a task that could be held."""

    #: in all; 0: no longer
    workers: int
    #: who waits
    why: str


Event: TypeAlias = (
    SpecAdded
    | GraphSubmitted
    | TaskReady
    | TaskPlacedByDask
    | TaskEnded
    | TaskCheckpointed
    | TaskCancelled
    | TaskSeceded
    | TaskPassedThrough
    | Restarted
    | WorkerJoined
    | WorkerLeft
    | WorkerPaused
    | WorkerNoticed
    | WorkerBusy
    | WorkersWanted
)


# ---------------------------------------------------------------------- on the wire
#: what each kind is called there
KINDS: Mapping[type[Event], str] = {
    SpecAdded: "specified",
    GraphSubmitted: "submitted",
    TaskReady: "ready",
    TaskPlacedByDask: "placed by dask",
    TaskEnded: "ended",
    TaskCheckpointed: "checkpointed",
    TaskCancelled: "cancelled",
    TaskSeceded: "seceded",
    TaskPassedThrough: "passed through",
    Restarted: "restarted",
    WorkerJoined: "joined",
    WorkerLeft: "left",
    WorkerPaused: "paused",
    WorkerNoticed: "noticed",
    WorkerBusy: "busy",
    WorkersWanted: "wanted",
}


def to_wire(event: Event) -> WireEvent:
    """The event as it travels."""
    return (KINDS[type(event)], *event)


def from_wire(told: WireEvent) -> Event:
    """The event that was told.

    Raises:
        SchedulerError: it is of another version's kind or form.
    """
    try:
        event, size = _FORMS[told[0]]
        if event is TaskEnded:
            told = (told[0], told[1], _RESULTS[told[2]], *told[3:])
        if len(told) == size:
            # what the class itself does in the end, without its Python
            return tuple.__new__(event, told[1:])
        return event(*told[1:])
    except (KeyError, IndexError, TypeError) as error:
        raise SchedulerError(
            f"the extension tells of {told[0]!r} in a form that this governor does not know ({error}): "
            "it is of another version of ORC; start the scheduler again"
        ) from error


#: kind → its type, and the length of its full form there
_FORMS: Mapping[str, tuple[type[Event], int]] = {kind: (event, 1 + len(event._fields)) for event, kind in KINDS.items()}
#: word → value: a look-up costs a tenth of what the enumeration's call does
_RESULTS: Mapping[str, Result] = {result.value: result for result in Result}
