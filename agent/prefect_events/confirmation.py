"""Has the Prefect server recorded what it took?

Its queue is in memory, ends with its process, and drops what comes when it is full.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from prefect.client.schemas.objects import TERMINAL_STATES

#: asks the server: (path, body) → the answer. Raises what the client raises
Ask = Callable[[str, dict[str, Any]], Any]

_FINAL = tuple(sorted(state.value for state in TERMINAL_STATES))
#: states that a task run may be in once a state of a type was recorded; of the other types it is enough that there is a
#: task run
_AFTER = {**dict.fromkeys(_FINAL, _FINAL), "RUNNING": ("RUNNING", "PAUSED", "CANCELLING", *_FINAL)}
#: task runs in an answer, as Prefect's server allows
_PAGE = 200


class Last(NamedTuple):
    """The last state change of a task run among several."""

    type: str
    occurred: datetime


class Confirmation:
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

    def recorded(self, last: Mapping[str, Last]) -> int:
        """How many of the task runs are as far as these say."""
        wanted: dict[tuple[str, ...], list[str]] = {}
        for run, change in last.items():
            wanted.setdefault(_AFTER.get(change.type, ()), []).append(run)
        found = 0
        for types, runs in wanted.items():
            state = {"state": {"type": {"any_": list(types)}}} if types else {}
            found += int(self._ask("/task_runs/count", {"task_runs": {"id": {"any_": runs}, **state}}))
        return found

    def missing(self, changes: Sequence[bytes], last: Mapping[str, Last]) -> list[bytes]:
        """Of each task run that is not as far as the last of its changes, nor later, its changes."""
        known, runs = set[str](), list(last)
        for at in range(0, len(runs), _PAGE):
            some = runs[at : at + _PAGE]
            for run in self._ask("/task_runs/filter", {"task_runs": {"id": {"any_": some}}, "limit": _PAGE}):
                state = run.get("state")
                if state and datetime.fromisoformat(state["timestamp"]) >= last[run["id"]].occurred:
                    known.add(run["id"])
        return [change for change in changes if _run(orjson.loads(change)) not in known]


def _run(event: Any) -> str:
    return str(event["resource"]["prefect.resource.id"]).removeprefix("prefect.task-run.")


def last_of(changes: Sequence[bytes]) -> dict[str, Last]:
    """Task run → the last of its changes."""
    found: dict[str, Last] = {}
    for change in changes:
        event = orjson.loads(change)
        occurred = datetime.fromisoformat(event["occurred"])
        run = _run(event)
        if run not in found or found[run].occurred <= occurred:
            found[run] = Last(event["payload"]["validated_state"]["type"], occurred)
    return found
