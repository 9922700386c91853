"""What the API asks of whoever governs."""

from __future__ import annotations

from typing import Protocol

from agent.api import schemas
from agent.model.identity import Identity


class Desk(Protocol):
    """The governor as people and other processes meet it."""

    def status(self) -> schemas.Status:
        """The governor and its pools."""

    async def why(self, run: str) -> schemas.Why:
        """What waits and what runs: of a flow run, or of all."""

    def holds(self) -> schemas.Holds:
        """Every hold."""

    def metrics(self) -> bytes:
        """Prometheus' text format."""

    async def answer(self, verb: str, said: schemas.Answer, who: Identity) -> schemas.Answered:
        """Approve or reject. Raises RequestError."""

    async def override(self, said: schemas.Override, who: Identity) -> schemas.Overridden:
        """Choose a pool. Raises RequestError."""
