"""A decision in words: a line for logs and holds, a page to read aloud."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.plain_text import printable
from agent.model.plans import Decision, Option
from agent.model.snapshot import Group, PoolState
from agent.model.units import show_mib, show_ms, show_usd
from agent.planner.feasible import distance, why_not


def in_short(group: Group, ranked: Sequence[Option]) -> str:
    """Why the first of the ranked options won, against the runner-up."""
    best = ranked[0]
    if group.override == best.pool:
        return f"{best.pool}: a person chose it"
    others = [entry for entry in ranked[1:] if not entry.why_not]
    if not others:
        return f"{best.pool}: the only pool that can take it"
    second = others[0]
    if best.late_ms is not None and not best.late_ms and second.late_ms:
        return f"{best.pool}: meets the deadline, {second.pool} would be {show_ms(second.late_ms)} late"
    if best.late_ms:
        return f"{best.pool}: {show_ms(best.late_ms)} late, the least of all pools"
    pull = f", preferred by {', '.join(best.preferred_by)}" if best.preferred_by else ""
    return f"{best.pool}: {_worth(best)}{pull}, against {_worth(second)} on {second.pool}"


def past(group: Group) -> str:
    """How the group's tasks came to be, and what happened to them before, that this decision answers to; ""."""
    parts = [group.chunk] if group.chunk else []
    if group.preemptions:
        parts.append(f"taken off a worker {_times(group.preemptions)}")
    if group.losses:
        parts.append(f"lost with a worker {_times(group.losses)}")
    if group.starved_mib:
        parts.append(f"ran out of {show_mib(group.starved_mib)}, is given {show_mib(group.needs.memory_mib or 0)}")
    if group.done_ms:
        parts.append(f"goes on from a checkpoint after {show_ms(group.done_ms)}")
    return ", ".join(parts)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _worth(entry: Option) -> str:
    return f"{show_usd(entry.usd_micros)} a task + {show_usd(entry.delay_usd_micros)} for {show_ms(entry.wait_ms + entry.run_ms)}"


def nearest(group: Group, states: Sequence[PoolState]) -> str:
    """Why no pool will do: the nearest one and what it lacks."""
    if not states:
        return f"{group.name} cannot run: no worker pool is declared and no worker is there; declare one in pools.yaml"
    best = min(states, key=lambda s: (distance(group, s), s.pool.name))
    return f"{group.name} cannot run in any pool; nearest is {best.pool.name} ({best.pool.shown_size}): {why_not(group, best)}"


def read_aloud(decision: Decision) -> str:
    """The whole decision as text: every pool, why not, what it would cost, which rule, who approved."""
    lines = [f"{decision.name}: {_verb(decision)}", f"  because {decision.reason}"]
    if decision.slack_ms is not None:
        left = show_ms(decision.slack_ms) if decision.slack_ms >= 0 else f"{show_ms(-decision.slack_ms)} too late"
        worth = show_usd(decision.minute_usd_micros or 0)
        lines.append(
            f"  its deadline leaves it {left} until it must start on demand; a minute of it is worth {worth} a task"
        )
    if decision.release:
        lines.append(f"  it waits until: {decision.release}")
    lines += [f"  {entry.pool} ({entry.kind}): {_aloud(entry)}" for entry in decision.options]
    lines += [f"  rule {verdict}" for verdict in decision.verdicts] or ["  no rule had a word to say"]
    lines.append("  no model was asked")
    if decision.approved_by:
        lines.append(f"  approved by {decision.approved_by}")
    return "\n".join(map(printable, lines))


def _verb(decision: Decision) -> str:
    return {
        "bind": f"bound to {decision.pool}",
        "wait": f"waits for {decision.pool}",
        "ask": f"a person must decide about {decision.pool}",
        "refuse": "refused",
        "move": f"leaves at its next checkpoint, for {decision.pool}",
        "leave": "left where it runs",
    }[decision.verb]


def _aloud(entry: Option) -> str:
    if entry.why_not or entry.estimate is None:
        return f"no, {entry.why_not}"
    guess = entry.estimate
    known = {
        "history": f"from {guess.n} runs there",
        "class history": f"from {guess.n} runs elsewhere",
        "author": "as its author says",
        "prior": "nothing is known of it",
    }
    parts = [f"work {show_usd(entry.work_usd_micros)}"]
    parts += [
        f"{name} {show_usd(usd)}"
        for name, usd in (
            ("start-up", entry.startup_usd_micros),
            ("idle", entry.idle_usd_micros),
            ("repetition", entry.interruption_usd_micros),
            ("on demand after all", entry.fallback_usd_micros),
            ("moving its checkpoint", entry.move_usd_micros),
        )
        if usd
    ]
    where = (
        f"room for {entry.room}"
        if entry.room
        else f"no room, waits {show_ms(entry.wait_ms)}" + (f", launches {entry.launch}" if entry.launch else "")
    )
    late = (
        ""
        if entry.late_ms is None
        else "; meets the deadline"
        if not entry.late_ms
        else f"; {show_ms(entry.late_ms)} late"
    )
    prefer = f"; preferred by {', '.join(entry.preferred_by)}" if entry.preferred_by else ""
    return (
        f"{show_ms(guess.median_ms)} (up to {show_ms(guess.high_ms)}, {known[guess.source]}); {where}; {' + '.join(parts)} + delay "
        f"{show_usd(entry.delay_usd_micros)} = {show_usd(entry.score_usd_micros)}{late}{prefer}"
    )
