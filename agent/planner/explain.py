"""A decision in words: a line for logs and holds, a page to read aloud."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.plain_text import printable
from agent.model.plans import Decision, Option
from agent.model.snapshot import Group, PoolState
from agent.model.units import show_mib, show_ms, show_usd
from agent.planner.feasible import blocked, distance


def in_short(group: Group, ranked: Sequence[Option], slack_ms: int | None = None) -> str:
    """Why the first of the ranked options won, against the runner-up, in a sentence; `figures` has its arithmetic.

    Args:
        slack_ms: what the group's deadline leaves; None without one.
    """
    best = ranked[0]
    if group.override == best.pool:
        return f"{best.pool}: a person chose it"
    second = _runner_up(ranked)
    if second is None:
        return f"{best.pool}: the only pool that can take it"
    if best.late_ms is not None and not best.late_ms and second.late_ms:
        paid = _dearer(best, second)
        text = f"{best.pool}: meets the deadline, {second.pool} would be {show_ms(second.late_ms)} late"
        return f"{text}, for {paid} more" if paid else text
    if best.late_ms:
        cheapest = min((each for each in ranked[1:] if not each.why_not), key=lambda each: each.usd_micros)
        paid = _dearer(best, cheapest)
        text = f"{best.pool}: {show_ms(best.late_ms)} late, the least of all pools"
        return f"{text}, for {paid} more than {cheapest.pool}" if paid else text
    pull = f", preferred by {', '.join(best.preferred_by)}" if best.preferred_by else ""
    left = f", and the deadline leaves {show_ms(slack_ms)}" if slack_ms is not None and slack_ms >= 0 else ""
    return f"{best.pool}: {_better(best, second)}{pull}{left}"


def figures(options: Sequence[Option]) -> str:
    """The sums behind a choice: dollars of a task, its time and what that is worth, of the best option and the
    runner-up; "".
    """
    shown = [option for option in (*options[:1], _runner_up(options)) if option is not None and not option.why_not]
    return ", against ".join(
        f"{show_usd(option.usd_micros)} a task and {show_usd(option.delay_usd_micros)} for its "
        f"{show_ms(option.wait_ms + option.run_ms)} on {option.pool}"
        for option in shown
    )


def _runner_up(ranked: Sequence[Option]) -> Option | None:
    return next((option for option in ranked[1:] if not option.why_not), None)


def _better(best: Option, second: Option) -> str:
    """How the winner is better: cheaper, sooner, or what the one costs of the other."""
    ours, theirs = best.usd_micros, second.usd_micros
    sooner_ms = second.wait_ms + second.run_ms - best.wait_ms - best.run_ms
    # differences that nobody would act on are none
    soon = show_ms(abs(sooner_ms)) if abs(sooner_ms) >= max(1_000, (best.wait_ms + best.run_ms) // 50) else ""
    percent = _percent(best, second)
    if ours < theirs and percent:
        how = f"{percent} % cheaper than {second.pool}"
        return how if not soon else f"{how} and {soon} sooner" if sooner_ms > 0 else f"{how}, for {soon} more"
    if ours > theirs and (percent or not theirs):
        if soon and sooner_ms > 0:
            return f"{soon} sooner than {second.pool}, for {_dearer(best, second)} more"
        return f"best in all, though {_dearer(best, second)} dearer than {second.pool}"
    if soon and sooner_ms > 0:
        return f"as cheap as {second.pool} and {soon} sooner"
    return f"as cheap as {second.pool}"


def _percent(ours: Option, theirs: Option) -> int:
    usd = theirs.usd_micros
    return round(100 * abs(usd - ours.usd_micros) / usd) if usd else 0


def _dearer(ours: Option, theirs: Option) -> str:
    """By how much it is dearer; "" where nobody would see it."""
    more, percent = ours.usd_micros - theirs.usd_micros, _percent(ours, theirs)
    if more <= 0 or (theirs.usd_micros and not percent):
        return ""
    return f"{percent} %" if theirs.usd_micros and percent <= 1_000 else f"{show_usd(more)} a task"


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


def nearest(group: Group, states: Sequence[PoolState]) -> str:
    """Why no pool will do: the nearest one and what it lacks."""
    if not states:
        return f"{group.name} cannot run: no worker pool is declared and no worker is there; declare one in pools.yaml"
    best = min(states, key=lambda s: (distance(group, s), s.pool.name))
    why = blocked(group, best)
    return (
        f"{group.name} cannot run in any pool; nearest is {best.pool.name} ({best.pool.shown_size}): "
        f"{why.text if why is not None else 'nothing keeps it from there'}"
    )


def read_aloud(decision: Decision) -> str:
    """The whole decision as text: every pool, why not, what it would cost, which rule, who approved."""
    lines = [f"{decision.name}: {_verb(decision)}", f"  because {decision.reason}"]
    if decision.pool is not None and (sums := figures(decision.options)):
        lines.append(f"  in figures: {sums}")
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
        f"{show_ms(guess.median_ms)} (up to {show_ms(guess.high_ms)}, {known[guess.source]}); {where}; "
        f"{' + '.join(parts)} + delay {show_usd(entry.delay_usd_micros)} = "
        f"{show_usd(entry.score_usd_micros)}{late}{prefer}"
    )
