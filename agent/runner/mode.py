"""Does ORC govern here? What the settings and the flow want, what the scheduler allows, and what it is asked later."""

from __future__ import annotations

import logging
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefect_dask.client import PrefectDaskClient

from agent.errors import OrcError, SchedulerError, SettingError
from agent.scheduler import protocol
from agent.settings import Mode, Settings

logger = logging.getLogger("orc.runner")

#: hosts a governor in this process; by its name, since only a run with a cluster of its own needs the planner here
HOST = "agent.governor.embedded:host"
ADAPT = (
    "adapt_kwargs cannot scale a governed scheduler: set workers.min and workers.max of its pools in pools.yaml instead"
)
#: what was said already by this process
_said: set[str] = set()


def say_once(message: str) -> None:
    """Warn, the first time in this process."""
    if message not in _said:
        _said.add(message)
        logger.warning("%s", message)


def scheduler_state(client: PrefectDaskClient, **asked: Any) -> dict[str, Any] | None:
    """What the extension says of itself.

    None where the scheduler has none, which asks nothing that it does not know.
    """
    if client.sync(client.scheduler.get_metadata, keys=[protocol.PRESENT], default=None) is None:
        return None
    state: dict[str, Any] = client.sync(client.scheduler.orc_state, **asked)
    return state


def asked_for(settings: Settings, word: Mode | None) -> bool:
    """Whether anything says that ORC is to govern: a scheduler, pools or a mode, by the settings or the flow."""
    return word is not None or settings.pools_declared() or bool({"scheduler", "mode"} & settings.model_fields_set)


class Governance:
    """Of one task runner.

    Args:
        word: the flow's own word.
        client: the runner's client, connected when it is asked for.
        at_end: has something called before the client and the cluster end.
        temporary: whether the cluster is the run's own; asked when the client is connected.
        adapted: whether an Adaptive scales it.
    """

    def __init__(
        self,
        word: Mode | None,
        *,
        settings: Callable[[], Settings],
        client: Callable[[], PrefectDaskClient],
        at_end: Callable[[Callable[[], None]], object],
        temporary: Callable[[], bool],
        adapted: bool,
    ) -> None:
        self.word = word
        self._settings, self._client, self._at_end = settings, client, at_end
        self._temporary, self._adapted = temporary, adapted
        self._mode: str | None = None
        #: workers that the scheduler had lost when this runner began; None: it does not count them
        self._broken: int | None = None

    @property
    def mode(self) -> str:
        """off, ungoverned, shadow or govern, as the settings say and the scheduler allows."""
        if self._mode is None:
            wanted = "off" if "off" in (self._settings().mode, self.word) else self.word
            self._mode = "off" if wanted == "off" else self._ask()
            if wanted is not None and self._mode in ("shadow", "govern"):
                self._mode = wanted
        return self._mode

    def _ask(self) -> str:
        client = self._client()
        temporary, address = self._temporary(), client.scheduler.address
        if temporary and client.cluster is not None and not self._adapted:
            self._host(address)
        try:
            state = scheduler_state(client)
        except Exception as error:  # whatever Dask raises where it is asked by an extension that does not answer
            return self._ungoverned(f"the ORC extension of the Dask scheduler at {address} fails ({error})", temporary)
        if state is None:
            return self._ungoverned(f"the Dask scheduler at {address} has no ORC extension", temporary)
        self._broken = state.get("broken")
        if state["degraded"]:
            return self._ungoverned("; ".join(state["degraded"]), temporary)
        if self._adapted:
            raise SettingError(ADAPT)
        if not state["epoch"]:
            logger.warning("no governor follows %s yet; tasks are held until one does (orc up, or orc status)", address)
        return str(state["mode"] if state["mode"] != "govern" else self._settings().mode)

    def _host(self, address: str) -> None:
        """Govern the run's own cluster from a thread of this process, until the run ends."""
        try:
            hosted = pkgutil.resolve_name(HOST)(self._settings(), address)
        except OrcError as error:
            logger.warning("the run's own cluster at %s cannot be governed: %s", address, error)
            return
        self._at_end(hosted.stop)

    def _ungoverned(self, why: str, temporary: bool) -> str:
        settings = self._settings()
        asked = "governed" in settings.model_fields_set or asked_for(settings, self.word)
        if asked and settings.governed == "required" and not temporary:
            raise SchedulerError(
                f"{why}; start it with --preload agent.scheduler.preload, or set ORC_GOVERNED=optional or ORC_MODE=off "
                "to run ungoverned"
            )
        address = self._client().scheduler.address
        how = f". To govern it: `orc up --scheduler {address}`; no worker is restarted for it"
        how = "" if asked or temporary else how
        say_once(f"this run is not governed, Dask places its tasks: {why}{how}")
        return "ungoverned"

    # ------------------------------------------------------------------ what the scheduler is asked later
    def learned_ms(self, task_class: str) -> float | None:
        """Mean time of an item of a class, ms, as the governor has told the extension."""
        state = scheduler_state(self._client()) if self.mode != "ungoverned" else None
        # `runtimes_ms`: task class → mean ms
        told = (state or {}).get("runtimes_ms") or {}
        return float(told[task_class]) if task_class in told else None

    def why_held(self, keys: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        """Key → reason and text, of those that are held."""
        told: Mapping[str, Any] = (scheduler_state(self._client(), keys=list(keys)) or {}).get("held", {})
        return {key: (reason, text) for key, (reason, text) in told.items()}

    def can_take(self) -> bool:
        """Whether the scheduler at the address is there, and governed as the lost one was."""
        try:
            state = scheduler_state(self._client())
        except Exception:  # it is just starting
            return False
        return state is not None or self.mode == "ungoverned"

    def lost_any(self) -> bool:
        """Whether the scheduler has lost a worker since this runner began."""
        if self._broken is None:
            return False
        state = scheduler_state(self._client())
        return state is None or state["broken"] != self._broken
