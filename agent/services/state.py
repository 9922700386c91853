"""What runs: addresses, ports and process ids of one `orc up`, in services.json under ORC_HOME."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agent.processes import atomic_file, family
from agent.settings import Settings


@dataclass(slots=True, kw_only=True)
class State:
    """One `orc up`, as it is written to services.json."""

    instance: str
    pid: int
    created: float
    ports: dict[str, int]
    ready: bool = False
    #: addresses of servers that are not ours: "scheduler", "prefect"
    theirs: dict[str, str] = field(default_factory=dict)
    #: what is being waited for, or what failed
    doing: str = "starting"
    failed: str = ""
    processes: dict[str, int] = field(default_factory=dict)

    def alive(self) -> bool:
        """Whether its supervisor runs."""
        return family.alive(self.pid, self.created)


def file_of(settings: Settings) -> Path:
    """services.json"""
    return settings.home / "services.json"


def read(settings: Settings) -> State | None:
    """What services.json says, or None."""
    try:
        return State(**json.loads(file_of(settings).read_text()))
    except (OSError, json.JSONDecodeError, TypeError):
        return None


def write(settings: Settings, state: State) -> None:
    """Replace services.json in one step."""
    atomic_file.write(file_of(settings), json.dumps(asdict(state)))
