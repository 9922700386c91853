"""The extension on the scheduler, as the governor asks it."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from agent.cluster.connect import caller_of
from agent.errors import FencedError, InstructionError, SchedulerError


class SchedulerClient:
    """Asks one scheduler, always with the governor's epoch."""

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        self.epoch = 0
        self._rpc: Any = None

    async def __aenter__(self) -> Self:
        self._rpc = caller_of(self.scheduler)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._rpc.close_rpc()

    async def call(self, handler: str, **arguments: Any) -> dict[str, Any]:
        """What one of the extension's handlers answers.

        Raises:
            SchedulerError: the scheduler is gone, or has no extension.
            FencedError: a newer governor has it.
            InstructionError: it does not understand what it was told, and has done nothing of it.
        """
        try:
            reply: dict[str, Any] = await getattr(self._rpc, handler)(epoch=self.epoch, **arguments)
        except InstructionError:
            raise
        except (OSError, AttributeError) as error:
            raise SchedulerError(
                f"the Dask scheduler at {self.scheduler} is gone or has no ORC extension: {error}"
            ) from error
        except Exception as error:  # distributed answers an unknown handler with a plain Exception
            raise SchedulerError(
                f"the Dask scheduler at {self.scheduler} answered {error}; is the extension loaded?"
            ) from error
        if isinstance(reply, dict) and "fenced" in reply:
            raise FencedError(
                f"governor epoch {reply['fenced']} governs {self.scheduler}; this one (epoch {self.epoch}) stops"
            )
        return reply

    async def copy_off(self, address: str) -> bool:
        """Results that only this worker has go to others; what it runs goes on.

        False: something stays that only it has.
        """
        return address in await self._rpc.retire_workers(workers=[address], close_workers=False, remove=False)
