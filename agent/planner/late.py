"""Tasks that run for much longer than expected: moved, or left where they are, by what each costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.model.plans import Option
from agent.model.snapshot import Slow
from agent.model.units import cost_micros, show_ms, show_usd
from agent.planner.room import Room, share
from agent.planner.slack import Urgency

#: moving must be cheaper than staying by a quarter: runtimes are guesses, and a move back costs as much
WORTH = 1.25


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a slow task, and why."""

    moves: bool
    why: str


def judge(slow: Slow, rooms: Mapping[str, Room], mean_ms: int, best: Option | None, urgent: Urgency) -> Verdict:
    """Whether a slow task is worth moving.

    A task that has outrun its estimate is expected to run for as long again as it has (Lindy: of a heavy-tailed runtime
    what is left grows with what has passed). Elsewhere it begins at its last checkpoint. While that holds less than a run
    of its class takes, the rest of such a run is left; a task that has more behind it is a long one, and takes as long
    again there too, by what the class takes there and here.

    Args:
        rooms: the pools. mean_ms: what the class takes where it runs, ms.
        best: the best pool for what its checkpoint does not hold; None where there is none.
    """
    here = rooms.get(slow.pool)
    ran = f"too slow: it has run for {show_ms(slow.ran_ms)}, {show_ms(slow.expected_ms)} was expected"
    if not slow.leaves:
        return Verdict(False, f"{ran}; left, since it has no checkpoint to leave at")
    if here is None or best is None or best.estimate is None:
        return Verdict(False, f"{ran}; left, since no other worker can take it")
    state = here.state
    work = cost_micros(state.usd_micros_per_hour, slow.ran_ms * share(slow.group, state))
    stay, go = work + urgent.delay(slow.ran_ms), best.score_usd_micros
    if slow.group.done_ms >= best.estimate.mean_ms:
        there = rooms[best.pool].state
        rest = round(slow.ran_ms * best.estimate.mean_ms / max(1, mean_ms))
        go += cost_micros(there.usd_micros_per_hour, rest * share(slow.group, there)) + urgent.delay(rest)
    said = f"{show_usd(stay)} to stay for as long again, {show_usd(go)} from its checkpoint on {best.pool}"
    if go * WORTH < stay:
        return Verdict(True, f"{ran}; moved: {said}")
    return Verdict(False, f"{ran}; left: {said}")
