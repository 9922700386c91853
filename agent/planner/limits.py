"""What a person must be asked about, and what a budget covers."""

from __future__ import annotations

from agent.model.plans import Option, Wait
from agent.model.snapshot import Budget, Group
from agent.model.units import cost_micros, show_usd
from agent.planner.draft import Draft
from agent.planner.room import share

#: what ends a wait for money
BUDGET_RELEASE = "a reservation that is settled, or a larger budget"


def asks(draft: Draft, group: Group, best: Option, remaining: int) -> tuple[str, str]:
    """The rule that asks a person about these tasks in the pool, and what it asks; ("", "")."""
    pool, usd = draft.rooms[best.pool].state.pool, best.usd_micros * remaining
    for verdict in group.verdicts:
        if verdict.verb != "escalate" or not verdict.selects(pool):
            continue
        if verdict.above_usd_micros is not None and usd <= verdict.above_usd_micros:
            continue
        covered = group.approved_usd_micros is None or usd <= group.approved_usd_micros
        if verdict.rule in group.approved and best.pool in group.approved_pools and covered:
            continue
        about = f"{remaining} tasks on {best.pool}, about {show_usd(usd)}"
        return verdict.rule, f"rule {verdict.rule} asks a person: {verdict.reason} ({about})"
    return "", ""


def held_for_a_person(draft: Draft, group: Group, ranked: list[Option], remaining: int) -> bool:
    """Hold them for a person's answer, where a rule asks for one."""
    rule, ask = asks(draft, group, ranked[0], remaining)
    if not rule:
        return False
    release = f"orc approve {group.id[:12]} (or orc reject)"
    decision = draft.decide(group, ranked, "ask", ask, release, asked_by=rule)
    draft.waits.append(
        Wait(group=group.id, count=remaining, reason="approval", why=ask, release=release, decision=decision)
    )
    return True


def reserve_of(draft: Draft, group: Group, best: Option) -> tuple[int, str]:
    """What each of its tasks reserves in the pool, and why its budget does not cover one more; "" where it does.

    Nothing without a budget.
    """
    name = group.needs.budget
    if name is None:
        return 0, ""
    budget: Budget | None = draft.budgets.get(name)
    if budget is None:
        return 0, f"budget {name} is not declared in pools.yaml"
    if budget.closed:
        return 0, f"nothing can be reserved from budget {name} while the ledger's database is away"
    longest = group.needs.max_runtime_ms or budget.max_runtime_ms
    if longest is None:
        return 0, f"budget {name} needs a max_runtime to reserve for: say it in @needs or as the budget's default"
    state, now = draft.rooms[best.pool].state, draft.snapshot.now_ms
    price = max(state.usd_micros_per_hour, state.pool.price_between(now, now + longest))
    each = cost_micros(price, (longest + state.startup_ms) * share(group, state)) + 1
    if max(0, draft.left[name]) >= each:
        return each, ""
    used = (
        f"{show_usd(budget.spent_usd_micros)} spent, "
        f"{show_usd(budget.limit_usd_micros - budget.spent_usd_micros - draft.left[name])} reserved"
    )
    return (
        0,
        f"budget {name} of {show_usd(budget.limit_usd_micros)} has {show_usd(max(0, draft.left[name]))} left "
        f"({used}); a task reserves {show_usd(each)}",
    )


def reserve(draft: Draft, group: Group, count: int, each: int) -> int:
    """Take the reservations of so many tasks, or of as many as its budget covers: how many those are."""
    if group.needs.budget is None:
        return count
    count = min(count, draft.left[group.needs.budget] // each)
    draft.left[group.needs.budget] -= count * each
    return count
