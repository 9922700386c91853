"""What tasks say of themselves, numbered: each distinct saying travels once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from agent.model.events import Event, SpecAdded
from agent.scheduler import protocol


class SpecRegistry:
    """Sayings by their numbers. Thousands of tasks share one."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = tell
        self._numbers: dict[str, int] = {}
        #: number → what is told of it
        self.told: list[dict[str, Any]] = []

    def number(self, ts: Any, says: Mapping[str, Any] | None, asked: Mapping[str, float] | None) -> int:
        """The number of what a task says, with the resources its author asked for."""
        named = says.get(protocol.SPEC) if says else ""
        saying = named if named is not None else json.dumps(says, sort_keys=True, default=str)
        key = f"{ts.prefix.name}\0{saying}\0{sorted(asked.items()) if asked else ''}"
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.told)
            self.told.append({"prefix": ts.prefix.name, "says": dict(says or {}), "resources": dict(asked or {})})
            self._tell(SpecAdded(number, self.told[number]))
        return number

    def says(self, number: int) -> Mapping[str, Any]:
        """The annotation of tasks of a number."""
        found: Mapping[str, Any] = self.told[number]["says"]
        return found

    def flow_run(self, number: int) -> str:
        """The flow run they belong to; "" for plain Dask."""
        return str((self.says(number).get(protocol.RUN) or {}).get("flow_run", ""))

    def name(self, number: int) -> str:
        """What people call them."""
        return str(self.says(number).get(protocol.NAME) or self.told[number]["prefix"])

    def has_deadline(self, number: int) -> bool:
        """Whether they belong to a run with a deadline, for which it matters what comes behind them."""
        return (self.says(number).get(protocol.RUN) or {}).get("deadline_ms") is not None
