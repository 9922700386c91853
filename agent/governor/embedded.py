"""The governor as a thread of a flow's process, for a cluster that lives as long as the run."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading

from agent.cluster import install
from agent.errors import FencedError, OrcError
from agent.governor.governor import Governor
from agent.governor.process import build
from agent.settings import Settings

logger = logging.getLogger("orc.governor")

#: seconds until the governor must follow the scheduler
PATIENCE = 30.0


class EmbeddedGovernor:
    """Governs one scheduler from a thread. `stop` waits until what it knows is on record."""

    def __init__(self, settings: Settings, scheduler: str) -> None:
        self.settings, self.scheduler = settings, scheduler
        self.governor: Governor | None = None
        self.error: BaseException | None = None
        self._begun = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="orc-governor", daemon=True)

    def start(self) -> None:
        """Until it follows the scheduler. Raises OrcError when it cannot."""
        self._thread.start()
        if not self._begun.wait(PATIENCE) and self.error is None:
            raise OrcError(f"the governor of {self.scheduler} did not begin within {PATIENCE:.0f} s")
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """End it after its last commit."""
        if self._loop is not None and self.governor is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.governor.stop)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        try:
            asyncio.run(self._govern())
        except FencedError as error:
            logger.warning("%s", error)
        except BaseException as error:
            # the flow's own thread reads it in `start`; later the cluster is gone, which its client says better
            self.error = error
            logger.info("the governor of %s ended: %s", self.scheduler, error)
        finally:
            self._begun.set()

    async def _govern(self) -> None:
        self._loop = asyncio.get_running_loop()
        settings = self.settings
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        await install.ensure(self.scheduler, settings.mode, settings.allow_untested)
        # a chain of its own for each run at a time, and the same one again afterwards, so that history is kept
        holder, number = f"{socket.gethostname()}/{os.getpid()}/{threading.get_ident()}", 1
        while True:
            chain = "temporary" if number == 1 else f"temporary-{number}"
            governor = build(settings.model_copy(update={"chain": chain}), self.scheduler, {}, holder)
            if await governor.take():
                break
            governor.journal.close()
            number += 1
        self.governor = governor
        governor.on_begun = self._begun.set
        try:
            await governor.run()
        finally:
            governor.journal.close()


def host(settings: Settings, scheduler: str) -> EmbeddedGovernor:
    """A started governor of a scheduler. Raises OrcError."""
    made = EmbeddedGovernor(settings, scheduler)
    made.start()
    return made
