"""Running tasks that may be worth moving: slow ones, long jobs, and those on demand that could go on on spot.

No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from agent.model.snapshot import Group, Running
from agent.model.units import mib_of
from agent.planner.moving import SLOW_TIMES
from agent.state.fleet import Fleet
from agent.state.tasks import BoundTask, SavedWork

#: a task is slow when it has run for so long, ms, too
SLOW_MS = 10_000
#: a slot is kept at least so long for a task that was told to leave for it, ms
KEPT_MS = 60_000
#: shortest time between two looks at whether a task on demand should go back to spot, ms
BACK_MS = 30_000


class Movable:
    """Which running tasks are shown to the planner, and which were told to leave."""

    def __init__(self, bound: Mapping[Any, BoundTask], saved: Mapping[Any, SavedWork], fleet: Fleet) -> None:
        self._bound, self._saved, self._fleet = bound, saved, fleet
        #: tasks that were told to leave, where they can go on, and until when a slot is kept for them there, ms
        self.leaving: dict[Any, tuple[str, int]] = {}
        #: of the markets, when they were looked at last
        self._seen = 0

    def told_to_leave(self, key: Any, pool: str, checkpoint_every_ms: int, now_ms: int) -> None:
        """A task is to leave its worker at its next checkpoint, and go on in a pool: a slot is kept there for as long
        as that may take.
        """
        self.leaving[key] = (pool, now_ms + max(2 * checkpoint_every_ms, KEPT_MS))

    def running(self, now_ms: int, look: bool, group_of: Callable[[BoundTask], Group | None]) -> tuple[Running, ...]:
        """Running tasks that may be worth moving, and those that were told to leave.

        Slow ones, each again when it has run for twice as long; on demand those with a checkpoint, every half a minute
        and whenever a worker joined; and those that may be long jobs, whenever something was seen of their markets.

        Args:
            look: else only those that were told, and what may be long jobs.
            group_of: the group of a task as it is now; None where it is no longer known.
        """
        out = [
            self._running(self._bound[key], group, now_ms, pool)
            for key, (pool, until_ms) in self.leaving.items()
            if now_ms < until_ms and (group := group_of(self._bound[key])) is not None
        ]
        # what may be a long job is looked at whenever something was seen of its market, a refusal in this very tick too
        came, seen = self._fleet.came, self._fleet.markets.version(now_ms)
        news = bool(seen) and (came or seen != self._seen)
        if look or news:
            self._fleet.came, self._seen = False, seen
            spot = any(x.pool.market == "spot" and x.retry_ms <= now_ms for x in self._fleet.pools.values())
            for key, bound in self._bound.items():
                if key in self.leaving:
                    continue
                again = look and self._worth_a_look(bound, now_ms, spot, came)
                if not again and (not news or bound.saved is None):
                    continue
                if (group := group_of(bound)) is not None and (again or group.may_be_long):
                    out.append(self._running(bound, group, now_ms))
        return tuple(sorted(out, key=lambda task: task.placement))

    def _worth_a_look(self, bound: BoundTask, now_ms: int, spot: bool, came: bool) -> bool:
        ran = now_ms - bound.at_ms
        if ran >= max(bound.slow_ms, SLOW_MS, SLOW_TIMES * bound.expected_ms):
            bound.slow_ms = 2 * ran
            return True
        if spot and bound.saved is not None and ran < bound.expected_ms and (came or ran >= bound.back_ms):
            status = self._fleet.pools.get(bound.pool)
            if status is not None and status.pool.market == "on-demand":
                bound.back_ms = ran + BACK_MS
                return True
        return False

    def _running(self, bound: BoundTask, group: Group, now_ms: int, leaves_for: str = "") -> Running:
        """A running task as if it were decided now, from its last checkpoint."""
        saved, (saved_ms, _) = self._saved.get(bound.task.key), bound.saved or (0, 0)
        done = (saved.done_ms if saved else 0) + max(0, saved_ms - bound.at_ms)
        group = replace(group, done_ms=done)
        if bound.saved is not None:
            # where it would go on from, should it leave now
            group = replace(group, checkpoint_pool=bound.pool, checkpoint_mib=mib_of(bound.saved[1]))
        every, live = group.needs.checkpoint_ms or 0, self._fleet.live.get(bound.address)
        return Running(
            placement=bound.placement,
            group=group,
            pool=bound.pool,
            ran_ms=now_ms - bound.at_ms,
            expected_ms=bound.expected_ms,
            leaves=bound.saved is not None,
            leaves_ms=max(0, max(saved_ms, bound.at_ms) + every - now_ms) if every else 0,
            beside=max(0, len(live.counts.bound) - 1) if live is not None else 0,
            leaves_for=leaves_for,
        )
