"""Why, in a sentence that a manager understands; the sums stand behind it."""

from __future__ import annotations

import pytest

from agent.model.needs import Needs
from agent.model.plans import Option
from agent.planner.explain import figures, in_short, read_aloud
from agent.planner.plan import plan
from tests.values import MINUTE, group, pool, snapshot, state

SPOT, ON_DEMAND = pool("spot", "spot", 0.144), pool(usd=0.36)


def decided(*states, **changes):
    (decision,) = plan(snapshot(*states, groups=(group(**changes),))).decisions
    return decision


def option(name: str, usd_micros: int, seconds: float, **changes: object) -> Option:
    return Option(pool=name, kind=name, work_usd_micros=usd_micros, run_ms=round(seconds * 1000), **changes)


def test_a_cheaper_pool_says_how_much_cheaper_and_what_the_deadline_leaves():
    loose = decided(state(SPOT, 1), state(ON_DEMAND, 1))
    assert loose.reason == "spot: 60 % cheaper than on-demand"
    bound = decided(state(SPOT, 1), state(ON_DEMAND, 1), deadline_ms=10 * MINUTE)
    assert bound.reason.startswith("spot: 60 % cheaper than on-demand, and the deadline leaves 6 min")


@pytest.mark.parametrize(
    ("best", "second", "says"),
    [
        (("spot", 400, 10), ("safe", 1000, 10), "spot: 60 % cheaper than safe"),
        (("spot", 400, 30), ("safe", 1000, 10), "spot: 60 % cheaper than safe, for 20.0 s more"),
        (("spot", 400, 10), ("safe", 1000, 130), "spot: 60 % cheaper than safe and 2 min 00 s sooner"),
        (("gpu", 1500, 10), ("cpu", 1000, 130), "gpu: 2 min 00 s sooner than cpu, for 50 % more"),
        (("gpu", 50_000, 10), ("cpu", 1000, 130), "gpu: 2 min 00 s sooner than cpu, for $0.0490 a task more"),
        (("gpu", 1500, 10), ("ours", 0, 130), "gpu: 2 min 00 s sooner than ours, for $0.00150 a task more"),
        (("a", 1000, 10), ("b", 1000, 10), "a: as cheap as b"),
        (("a", 1000, 10), ("b", 1001, 10.1), "a: as cheap as b"),
        (("a", 1000, 10), ("b", 1000, 20), "a: as cheap as b and 10.0 s sooner"),
        (("a", 0, 10), ("b", 0, 10), "a: as cheap as b"),
        (("a", 1100, 10), ("b", 1000, 10), "a: best in all, though 10 % dearer than b"),
    ],
)
def test_the_winner_beside_the_runner_up(best, second, says):
    assert in_short(group(), [option(*best), option("no", 1, 1, why_not="too small"), option(*second)]) == says


def test_preferences_and_people_are_named():
    best, second = option("a", 1100, 10, preferred_by=("green-first",)), option("b", 1000, 10)
    assert in_short(group(), [best, second]).endswith("than b, preferred by green-first")
    assert in_short(group(override="a"), [best, second]) == "a: a person chose it"
    assert in_short(group(), [best]) == "a: the only pool that can take it"


def test_lateness_comes_before_money():
    late, later = option("a", 9, 10, late_ms=2_000), option("b", 1, 10, late_ms=60_000)
    dear = option("c", 12, 10, late_ms=60_000)
    assert (
        in_short(group(), [dear, later], -5)
        == "c: 1 min 00 s late, the least of all pools, for $0.00001 a task more than b"
    )
    assert in_short(group(), [late, dear, later], -5) == "a: 2.0 s late, the least of all pools, for 800 % more than b"
    assert in_short(group(), [late, dear], -5) == "a: 2.0 s late, the least of all pools"
    in_time = option("a", 9, 10, late_ms=0)
    assert in_short(group(), [in_time, dear], 5) == "a: meets the deadline, c would be 1 min 00 s late"
    assert in_short(group(), [in_time, later], 5) == "a: meets the deadline, b would be 1 min 00 s late, for 800 % more"


def test_the_sentence_has_no_sums_and_the_figures_stand_behind_it():
    made = decided(state(SPOT, 1), state(ON_DEMAND, 1), deadline_ms=10 * MINUTE)
    assert "$" not in made.reason
    lines = read_aloud(made).splitlines()
    assert lines[1] == f"  because {made.reason}"
    assert lines[2].startswith("  in figures: $")
    assert lines[2] == f"  in figures: {figures(made.options)}"
    assert "on spot, against $" in lines[2]


def test_what_is_refused_or_has_no_pool_has_no_figures():
    made = decided(state(SPOT, 1), needs=Needs(memory_mib=1_000_000))
    assert made.verb == "refuse"
    assert "in figures" not in read_aloud(made)
    assert figures(()) == ""
    assert figures([option("a", 1, 1, why_not="no")]) == ""
