"""Which governor is obeyed: the newest that has spoken."""

from __future__ import annotations

from typing import Any

from agent.errors import InstructionError


class Fence:
    """Keeps out governors that another has followed."""

    def __init__(self) -> None:
        #: number of the newest governor
        self.epoch = 0

    def refusal(self, epoch: int) -> dict[str, Any] | None:
        """The answer to a governor that is overtaken; None to the newest, which is the one from now on."""
        if self.overtaken(epoch):
            return {"fenced": self.epoch}
        self.epoch = epoch
        return None

    def overtaken(self, epoch: int) -> bool:
        """Whether a newer governor has spoken. Raises InstructionError where the epoch is no number."""
        # compared first, NaN would keep nobody out from then on
        if not isinstance(epoch, int) or isinstance(epoch, bool):
            raise InstructionError(f"a governor's epoch is a whole number, not {epoch!r:.100}")
        return epoch < self.epoch
