"""The rules in force, and the files they come from: looked at now and then, on record before they count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from agent.governor.rulebook import Refused, Rulebook, Rules
from agent.governor.timers import Timer
from agent.model.effects import Note
from agent.state.cluster import ClusterState

logger = logging.getLogger("orc.governor")

#: so often the rule files are looked at, ms
LOOK_MS = 1_000


class RulesInForce:
    """Swaps the state's rules when their files change, or when an hour turns that they read."""

    def __init__(self, rulebook: Rulebook, state: ClusterState, now_ms: int) -> None:
        self.rulebook, self.state = rulebook, state
        self._new: Rules | None = None
        self._timer = Timer(LOOK_MS, now_ms)
        self._looking = False

    @property
    def digest(self) -> str:
        """Of the rules in force."""
        return self.rulebook.rules.digest

    def pending(self) -> Note | None:
        """New rules, as they go on record before `turn` puts them in force."""
        if self._new is None:
            return None
        return Note(
            kind="rules",
            body={
                "rules_in_force": self._new.digest,
                "count": self._new.count,
                "before": self.digest,
                **asdict(self.rulebook.change(self._new)),
            },
        )

    def turn(self, now_ms: int) -> Mapping[str, frozenset[str]]:
        """Judge what waits by the rules of now. Groups that have another name then: new → old ones."""
        if self._new is None:
            return self.state.turn_hour(now_ms)
        new, self._new = self._new, None
        logger.info("%d rules are in force, digest %s", new.count, new.digest[:12])
        moved = self.state.judge_again(new.judge, new.set.facts, now_ms)
        self.rulebook.swap(new)
        return moved

    def look(self, now_ms: int, job: Callable[[Awaitable[Any]], Any], found: Callable[[Note | None], None]) -> None:
        """Look at the files in a job beside the rounds, when it is time to.

        Args:
            found: called when they have changed: with a note where they are refused.
        """
        if not self._looking and self._new is None and self._timer.take(now_ms):
            self._looking = True
            job(self._look(found))

    async def _look(self, found: Callable[[Note | None], None]) -> None:
        wrong = self.rulebook.wrong
        try:
            seen = await asyncio.to_thread(self.rulebook.look)
        finally:
            self._looking = False
        if isinstance(seen, Refused):
            found(self.refused())
        elif seen is not None:
            self._new = seen
            found(None)
        elif wrong and not self.rulebook.wrong:
            logger.info("the rule files are right again, and as they are in force")

    def refused(self) -> Note:
        """Files that are wrong are said aloud; the rules in force stay."""
        logger.error("the rule files are refused and the rules in force stay: %s", self.rulebook.wrong)
        return Note(kind="rules", body={"rules_refused": self.rulebook.wrong, "in_force": self.digest})
