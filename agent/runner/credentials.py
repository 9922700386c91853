"""The flow's process tells a worker that asks the credentials that its task runs do not bring along."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from prefect.context import SettingsContext
from prefect.logging import get_logger

from agent.worker import credentials
from agent.worker.credentials import Told, Withheld

#: of all runners of this process: clients are shared, and have one listener for a topic
_kept: dict[str, Told] = {}
_lock = threading.Lock()


class Credentials:
    """Of one task runner."""

    def __init__(self) -> None:
        self._withheld: dict[str, Withheld] = {}
        self._listening = False

    def withhold(self, context: Mapping[str, Any]) -> tuple[dict[str, Any], Withheld | None]:
        """Prefect's serialized context without credentials, and what its workers are to ask for."""
        rest, values = credentials.withhold(context, SettingsContext.get())
        if not values:
            return rest, None
        made = Withheld(name=uuid4().hex, paths=tuple(values))
        with _lock:
            _kept[made.name] = Told(values)
        self._withheld[made.name] = made
        return rest, made

    def listen(self, client: Any, anew: bool = False) -> None:
        """Answer who asks through this client's scheduler; `anew`: that is a new one."""
        if self._withheld and (anew or not self._listening):
            self._listening = True
            client.subscribe_topic(credentials.TOPIC, lambda event: _answer(client, event[1]))

    def end(self) -> None:
        """Nobody is told any more."""
        with _lock:
            for name in self._withheld:
                _kept.pop(name, None)


async def _answer(client: Any, asked: Any) -> None:
    """To the worker that asks, and to nobody else: through the scheduler, which does not keep it."""
    if not isinstance(asked, Mapping):
        return
    name, worker = str(asked.get("name")), str(asked.get("worker"))
    with _lock:
        told = _kept.get(name)
    if told is None:
        return
    try:
        await client.run(credentials.receive, name, told, workers=[worker])
    except Exception as error:  # whatever a worker that goes away makes Dask raise: it asks again where it is
        get_logger("orc").debug("worker %s could not be told credentials: %s", worker, error)
