"""Has the Prefect server recorded what it took? Its queue is in memory, ends with its process, and drops what comes when it is full."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

#: asks the server: (path, body) → the answer. Raises what the client raises
Ask = Callable[[str, dict[str, Any]], Any]

_FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
#: states that a task run may be in once a state of a type was recorded; of the other types it is enough that there is a task run
_AFTER = {**dict.fromkeys(_FINAL, _FINAL), "RUNNING": ("RUNNING", "PAUSED", "CANCELLING", *_FINAL)}
#: task runs in an answer, as Prefect's server allows
_PAGE = 200


class _Change(NamedTuple):
    """The last state change of a task run among several."""

    type: str
    occurred: datetime
    event: bytes


class Receipts:
    """What the server took and was not yet seen to have recorded, oldest first.

    Args:
        ask: how the server is asked.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._taken: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._taken)

    def add(self, batch: Sequence[bytes]) -> None:
        """The server took these events, as JSON."""
        self._taken.extend(batch)

    def oldest(self, number: int) -> list[bytes]:
        """Of what it took."""
        return [self._taken[at] for at in range(min(number, len(self._taken)))]

    def forget(self, number: int) -> None:
        """The oldest of it are recorded."""
        for _ in range(min(number, len(self._taken))):
            self._taken.popleft()

    def recorded(self, changes: Sequence[bytes]) -> tuple[int, int]:
        """How many of the task runs that these are of are as far as they say, and how many there are."""
        last = _last(changes)
        wanted: dict[tuple[str, ...], list[str]] = {}
        for run, change in last.items():
            wanted.setdefault(_AFTER.get(change.type, ()), []).append(run)
        found = 0
        for types, runs in wanted.items():
            state = {"state": {"type": {"any_": list(types)}}} if types else {}
            found += int(self._ask("/task_runs/count", {"task_runs": {"id": {"any_": runs}, **state}}))
        return found, len(last)

    def missing(self, changes: Sequence[bytes]) -> list[bytes]:
        """Of each task run that is not as far as they say, nor later, its changes."""
        last, known = _last(changes), set[str]()
        runs = list(last)
        for at in range(0, len(runs), _PAGE):
            some = runs[at : at + _PAGE]
            for run in self._ask("/task_runs/filter", {"task_runs": {"id": {"any_": some}}, "limit": _PAGE}):
                state = run.get("state")
                if state and datetime.fromisoformat(state["timestamp"]) >= last[run["id"]].occurred:
                    known.add(run["id"])
        return [change for change in changes if _run(orjson.loads(change)) not in known]


def _run(event: Any) -> str:
    return str(event["resource"]["prefect.resource.id"]).removeprefix("prefect.task-run.")


def _last(changes: Sequence[bytes]) -> dict[str, _Change]:
    found: dict[str, _Change] = {}
    for change in changes:
        event = orjson.loads(change)
        occurred = datetime.fromisoformat(event["occurred"])
        run = _run(event)
        if run not in found or found[run].occurred <= occurred:
            found[run] = _Change(event["payload"]["validated_state"]["type"], occurred, change)
    return found
