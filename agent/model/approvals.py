"""A question to a person, with an identity of its own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

ApprovalState = Literal["asked", "answered", "withdrawn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """What a person is asked: whether a group's tasks may run in a pool although rules escalate it."""

    #: stays the same for as long as the question is open, whatever becomes of the group's name
    id: str
    #: the group it is about now
    group: str
    #: names the group had before, while the question was open
    known_as: tuple[str, ...] = ()
    task: str
    root_run: str
    flow_run: str
    #: rules that ask
    rules: tuple[str, ...]
    #: the pool that would be approved
    pool: str
    asked_ms: int
    state: ApprovalState = "asked"

    def body(self) -> dict[str, object]:
        """As it goes on record."""
        return asdict(self)
