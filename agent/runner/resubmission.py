"""A new scheduler at the old one's address: what has no stored result is submitted again, as the same task runs."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prefect.client.schemas.objects import State
from prefect.logging import get_logger

from agent.errors import InfrastructureLostError
from agent.runner.results import SMALL
from agent.runner.task_runs import PreparedTaskRun

#: why tasks are cancelled with their flow run
CANCELLED = "the flow run was cancelled"


class Resubmittable(Protocol):
    """A future whose task run may be sent again."""

    @property
    def wrapped_future(self) -> Any:
        """Dask's."""

    @property
    def known_state(self) -> State[Any] | None:
        """Its final state, once it is here."""

    def replace(self, future: Any) -> None:
        """The Dask future of the same task run in a new scheduler."""


@dataclass(slots=True, kw_only=True)
class _Sent:
    """A task run as it was sent."""

    prepared: PreparedTaskRun
    #: keys of the task runs it depends on
    upstream: tuple[str, ...]
    #: Dask's annotations, ours among them
    annotations: Mapping[str, Any]
    future: weakref.ref[Resubmittable]
    #: its final state, where that is small and its result stored: the flow may have dropped the future
    state: Any = None


class Resubmission:
    """What a task runner has sent, and how to send it again.

    Args:
        within_seconds: how long a new scheduler may take to be there.
        always: also what is not persisted runs again; None: only where all that is lost is persisted; False: never.
        ready: whether the new scheduler can take tasks. Called often.
        restore: puts what task runs have in common into the new scheduler.
        send: one task run with these upstream futures or states and annotations; answers its Dask future.
    """

    def __init__(
        self,
        *,
        within_seconds: float,
        always: bool | None,
        ready: Callable[[], bool],
        restore: Callable[[], None],
        send: Callable[[PreparedTaskRun, Sequence[Any], Mapping[str, Any]], Any],
    ) -> None:
        self.within_seconds, self.always = within_seconds, always
        self._ready, self._restore, self._send = ready, restore, send
        self._sent: dict[str, _Sent] = {}
        self._lock = threading.RLock()
        #: times that all was sent again
        self.recovered = 0

    def note(self, prepared: PreparedTaskRun, annotations: Mapping[str, Any], future: Resubmittable) -> None:
        """A task run was sent, with these annotations."""
        upstream = tuple(each.key for each in prepared.found)
        # Dask's futures are not held, or results would stay on the workers for longer than the flow needs them
        self._sent[prepared.key] = _Sent(
            prepared=prepared.without_futures(),
            upstream=upstream,
            annotations=annotations,
            future=weakref.ref(future),
        )

    def ended(self, key: str, state: Any) -> None:
        """Its final state is known; None where it is not worth keeping."""
        entry = self._sent.get(key)
        if entry is not None:
            entry.state = state
            # larger parameters are kept only until the task has ended
            if len(entry.prepared.call) + len(entry.prepared.code) > SMALL:
                del self._sent[key]

    def ends(self) -> dict[str, tuple[PreparedTaskRun, Any]]:
        """Task run → what it was made of and its final state, where the flow has it."""
        found = {}
        for key, entry in list(self._sent.items()):
            if (state := self._state(key)) is not None:
                found[str(entry.prepared.run.id)] = entry.prepared, state
        return found

    def waiting(self) -> list[str]:
        """Keys of what Dask has not ended, in the order they were sent."""
        found = [(entry.prepared.key, entry.future()) for entry in list(self._sent.values())]
        return [key for key, future in found if future is not None and future.wrapped_future.status == "pending"]

    def prepared(self, key: str) -> PreparedTaskRun | None:
        """The task run of a key, as it was sent."""
        entry = self._sent.get(key)
        return entry.prepared if entry is not None else None

    def cancel(self) -> None:
        """Cancel, in one message, what has not ended."""
        futures = [future.wrapped_future for entry in self._open() if (future := entry.future()) is not None]
        if futures:
            futures[0].client.cancel(futures, reason=CANCELLED, msg=CANCELLED)

    def recover(self, lost: Any, why: BaseException) -> None:
        """Send again what was lost with the scheduler. `lost`: the Dask future that says so.

        Raises:
            InfrastructureLostError: there is no new scheduler in time, or it must not be sent again.
        """
        with self._lock:
            entry = self._sent.get(lost.key)
            current = entry.future() if entry is not None else None
            if current is not None and current.wrapped_future is not lost:
                return  # another future's wait has brought it back
            self._refuse_or_wait(lost.client, why)
            self._all_again(why)

    def _refuse_or_wait(self, client: Any, why: BaseException) -> None:
        gone = f"the Dask scheduler {client.scheduler.address if client.scheduler else ''} is gone: {why}"
        if self.always is False:
            raise InfrastructureLostError(gone) from why
        if self.always is None and not all(each.prepared.common.persisted for each in self._open()):
            raise InfrastructureLostError(
                f"{gone}. Results are not persisted, so nothing is submitted again; persist them, or give the task "
                "runner resubmit=True"
            ) from why
        until = time.monotonic() + self.within_seconds
        while not (client.status == "running" and self._ready()):
            if time.monotonic() > until or client.status in ("closed", "closing"):
                raise InfrastructureLostError(f"{gone}; there was no new one within {self.within_seconds:g} s") from why
            time.sleep(0.1)

    def _open(self) -> list[_Sent]:
        """Task runs whose end somebody may still ask for."""
        found: list[_Sent] = []
        for entry in self._sent.values():
            future = entry.future()
            if future is not None and future.known_state is None:
                found.append(entry)
        return found

    def _all_again(self, why: BaseException) -> None:
        self._restore()
        self.recovered += 1
        wanted: set[str] = set()
        stack = [entry.prepared.key for entry in self._open()]
        while stack:
            key = stack.pop()
            if key in wanted:
                continue
            entry = self._sent.get(key)
            if entry is None:
                raise InfrastructureLostError(
                    f"the scheduler is gone, and with it {key}, which others depend on and whose parameters were too "
                    "large to be kept"
                ) from why
            wanted.add(key)
            stack += [each for each in entry.upstream if self._state(each) is None]
        made: dict[str, Any] = {}
        for key, entry in self._sent.items():  # in the order they were sent: upstream first
            if key not in wanted:
                continue
            found: list[Any] = [made[each] if each in made else self._state(each) for each in entry.upstream]
            made[key] = self._send(entry.prepared, found, entry.annotations)
            future = entry.future()
            if future is not None:
                future.replace(made[key])
        get_logger("orc").warning(
            "the Dask scheduler was lost; %s task runs without a known result were submitted to the new one", len(made)
        )

    def _state(self, key: str) -> Any:
        """The final state of a task run, where the flow has it."""
        entry = self._sent.get(key)
        future = entry.future() if entry is not None else None
        known = future.known_state if future is not None else None
        return known if known is not None or entry is None else entry.state
