"""Which run a task belongs to, as it travels with the task to the worker."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """Identity of a flow run, as it travels with its tasks."""

    flow_run: str = ""
    root_run: str = ""
    flow: str = ""
    deployment: str = ""
    team: str = ""
    trace: str = ""
    expected_start_ms: int = 0
    deadline_ms: int | None = None
    #: the flow's own needs, the default of its tasks
    defaults: dict[str, Any] = field(default_factory=dict)

    def travels(self) -> dict[str, Any]:
        """What the annotation carries."""
        out = asdict(self)
        del out["defaults"]
        return out


#: set on a worker by the task body, so that nested tasks know their run without asking the server
current_run: ContextVar[RunInfo | None] = ContextVar("orc_run", default=None)
