"""`batch_size`: how many small items of a `map` make one task run, and why."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, PrefectTaskRunFuture
from prefect.utilities.engine import collect_task_run_inputs_sync

from agent.model.units import duration_ms
from agent.runner.futures import GovernedFuture
from agent.worker.chunks import Outcomes, item

logger = logging.getLogger("orc.runner")

#: what a chunk should take: long against the few ms a task run costs, short against a loss
TARGET_MS = 1000
#: items of a class that is not known yet, run first and measured
PROBE = 16
#: chunks for each slot, at least, so that the slots end together
BALANCE = 4
#: seconds `map` waits for the probe
PATIENCE = 120.0
#: slots counted on while there are fewer, since workers are launched for what waits
SLOTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSize:
    """A chunk size and its reason; what the annotation carries."""

    items: int
    why: str

    def as_annotation(self, total: int) -> dict[str, Any]:
        """For the decision record."""
        return {"size": self.items, "items": total, "why": self.why}


def size(total: int, item_ms: float, source: str, slots: int) -> ChunkSize:
    """Items a chunk, 1 ≤ items ≤ total.

    Args:
        item_ms: mean time of one item, > 0. source: where that is from, for people.
        slots: threads of the workers.
    """
    by_time = max(1, math.floor(TARGET_MS / item_ms)) if item_ms > 0 else total
    wide = max(slots, SLOTS)
    by_slots = max(1, math.ceil(total / (BALANCE * wide)))
    best = min(total, by_time, by_slots)
    limit = f"{TARGET_MS / 1000:g} s a chunk" if by_time <= by_slots else f"{BALANCE} chunks for each of {wide} slots"
    return ChunkSize(items=best, why=f"an item takes {item_ms:.3g} ms ({source}); {limit}")


def said_ms(fields: Mapping[str, Any]) -> float | None:
    """The author's runtime of an item, ms."""
    value = fields.get("runtime_ms")
    if value is None and "runtime" in fields:
        value = duration_ms(fields["runtime"])
    return float(value) if value else None


class ItemFuture(PrefectTaskRunFuture[Any]):
    """One item of a chunk. Its task run is the chunk's."""

    def __init__(self, chunk: GovernedFuture, at: int) -> None:
        super().__init__(chunk.task_run_id)
        self.chunk, self.at = chunk, at

    @property
    def state(self) -> State[Any]:
        """The item's state; the chunk's, until that has ended."""
        if self._final_state is None:
            state = self.chunk.state
            if not state.is_final():
                return state
            self._final_state = item(state, self.at)
        return self._final_state

    def wait(self, timeout: float | None = None) -> None:
        """See `PrefectFuture`."""
        self.chunk.wait(timeout)
        if self.chunk.known_state is not None:
            self._final_state = item(self.chunk.known_state, self.at)

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """See `PrefectFuture`. Raises what the item raised, TimeoutError."""
        if self._final_state is None:
            if self.chunk.known_state is None:
                self.chunk.result(timeout=timeout, raise_on_failure=False)
            if self.chunk.known_state is None:
                raise TimeoutError(f"Task run {self.task_run_id} did not complete within {timeout} seconds")
            self._final_state = item(self.chunk.known_state, self.at)
        return cast(Any, self._final_state).result(raise_on_failure=raise_on_failure, _sync=True)

    def add_done_callback(self, fn: Callable[[PrefectFuture[Any]], None]) -> None:
        """See `PrefectFuture`."""
        self.chunk.add_done_callback(lambda _: fn(self))


def measured_ms(chunk: GovernedFuture) -> float | None:
    """Mean time of an item of a chunk that was run first; None when it did not end in time."""
    chunk.wait(PATIENCE)
    state = chunk.known_state
    data = getattr(getattr(state, "data", None), "result", getattr(state, "data", None))
    outcomes = getattr(data, "outcomes", data)
    if not isinstance(outcomes, Outcomes):
        return None
    return max(1e-3, outcomes.seconds * 1000 / max(1, len(outcomes.values)))


def split(items: Sequence[Any], each: int) -> list[Sequence[Any]]:
    """In chunks of so many."""
    return [items[at : at + each] for at in range(0, len(items), each)]


class SendChunks(Protocol):
    """Sends chunks of a task's items."""

    def __call__(
        self, task: Any, chunks: Sequence[Any], wait_for: Any, depends: Any, why: dict[str, Any]
    ) -> list[GovernedFuture]:
        """Their futures. `depends`: parameter → upstream task runs; `why`: the size, for the decision record."""


#: mean ms of an item by task class, as this process measured it
_measured: dict[str, float] = {}


class ChunkedMap:
    """`map` with a batch size, of one task runner.

    Args:
        send: sends chunks.
        item_ms: mean time of an item of a class where the governor knows it.
        slots: how many threads the workers have.
    """

    def __init__(self, send: SendChunks, item_ms: Callable[[str], float | None], slots: Callable[[], int]) -> None:
        self._send, self._item_ms, self._slots = send, item_ms, slots

    def map(
        self, task: Any, expanded: Expanded, wait_for: Any, said: int | str, fields: Mapping[str, Any]
    ) -> list[ItemFuture] | None:
        """A future for each item; None where each item is to be a task run of its own.

        Args:
            said: the batch size.
            fields: the task's needs.
        """
        items = expanded.items
        if (why := _apart(task)) is not None:
            logger.info("the items of task %r are not merged: %s", task.name, why)
            return None
        if expanded.nested(items):
            # an item whose own input fails must fail alone
            return None
        send = partial(self._send, task, wait_for=wait_for, depends=expanded.dependencies)
        chunks: list[GovernedFuture] = []
        done = 0
        if said == "auto":
            chosen, chunks = self._chosen(task, items, send, fields)
            done = min(PROBE, len(items)) if chunks else 0
        else:
            chosen = ChunkSize(items=int(said), why="said by the author")
        if chosen.items == 1 and not chunks:
            return None
        rest = split(items[done:], chosen.items)
        sizes = [done] * len(chunks) + [len(chunk) for chunk in rest]
        chunks += send(chunks=rest, why=chosen.as_annotation(len(items)))
        return [ItemFuture(chunk, at) for chunk, count in zip(chunks, sizes, strict=True) for at in range(count)]

    def _chosen(
        self, task: Any, items: Sequence[Any], send: Callable[..., list[GovernedFuture]], fields: Mapping[str, Any]
    ) -> tuple[ChunkSize, list[GovernedFuture]]:
        """The chunk size; with the chunk that was run to find it, where nothing was known of the class."""
        slots, name = self._slots(), fields.get("task_class") or task.task_key
        learned = self._item_ms(name)
        if (learned := _measured.get(name) if learned is None else learned) is not None:
            return size(len(items), learned, "learned", slots), []
        if (runtime := said_ms(fields)) is not None:
            return size(len(items), runtime, "said by the author", slots), []
        count = min(PROBE, len(items))
        why = ChunkSize(items=count, why="nothing is known of the class: run first and measured")
        probe = send(chunks=[items[:count]], why=why.as_annotation(len(items)))
        found = measured_ms(probe[0])
        if found is None:
            return ChunkSize(items=PROBE, why="the probe did not end in time"), probe
        _measured[name] = found
        return size(len(items) - count or 1, found, f"measured on {count}", slots), probe


def _apart(task: Any) -> str | None:
    """Why each item of a task must be a task run of its own.

    What names its result is asked with an item's parameters.
    """
    if "{parameters" in (task.result_storage_key or ""):
        return f"their results are stored as {task.result_storage_key!r}, each under its own name"
    return "each has a cache key of its own, by the task's cache_key_fn" if task.cache_key_fn is not None else None


class Expanded:
    """Stands in for a task runner while Prefect expands the parameters of a `map`."""

    _started = True

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.dependencies: dict[str, set[Any]] = {}

    def submit(
        self,
        task: Any,
        parameters: dict[str, Any],
        wait_for: Any = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> None:
        """Take the parameters of one item."""
        self.items.append(parameters)
        self.dependencies = dependencies or {}

    @staticmethod
    def nested(items: Sequence[Mapping[str, Any]]) -> bool:
        """Whether an item still holds a future or a state."""
        plain = (int, float, str, bytes, bool, type(None))
        for each in items:
            for value in each.values():
                if type(value) not in plain and collect_task_run_inputs_sync(value):
                    return True
        return False
