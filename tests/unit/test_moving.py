"""Running tasks that are too slow, or that spot would do for less: moved or left, by cost."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from agent.ledger.snapshots import join, split
from agent.model.needs import Needs
from agent.model.snapshot import Running
from agent.model.verdicts import Verdict
from agent.planner.plan import plan
from tests.values import MINUTE, group, pool, snapshot, state, worker

NEEDS = Needs(runtime_ms=MINUTE, interruptible=True)


def slow(ran, done=0, leaves=True, **changes):
    return Running(
        placement=7,
        group=group("late", 1, NEEDS, done_ms=done),
        pool="on-demand",
        ran_ms=ran,
        expected_ms=MINUTE,
        leaves=leaves,
        **changes,
    )


def decided(*states, late):
    made = plan(snapshot(*states, running=(late,), now_ms=late.ran_ms))
    (decision,) = made.decisions
    return made.moves, decision


def test_a_stalled_task_moves_to_where_its_class_is_soon_done():
    moves, decision = decided(state(pool(), 1), late=slow(20 * MINUTE, done=MINUTE // 2))
    assert [move.placement for move in moves] == [7]
    assert decision.verb == "move"
    assert "too slow: it has run for 20 min 00 s, 1 min 00 s was expected; moved" in decision.reason


def test_a_long_task_that_makes_progress_is_left_where_nothing_is_faster():
    moves, decision = decided(state(pool(), 1), late=slow(20 * MINUTE, done=19 * MINUTE))
    assert not moves
    assert decision.verb == "leave"
    assert "; left: " in decision.reason


def test_it_moves_to_a_cheaper_pool_when_the_difference_pays():
    cheap = state(pool("spot", "spot", 0.01), 1)
    dear = state(pool(usd=50.0), 1)
    moves, decision = decided(cheap, dear, late=slow(60 * MINUTE, done=59 * MINUTE))
    assert moves
    assert decision.pool == "spot"


@pytest.mark.parametrize(
    ("late", "why"),
    [
        (slow(20 * MINUTE, leaves=False), "it has no checkpoint to leave at"),
        (slow(20 * MINUTE), "no other worker can take it"),
    ],
)
def test_what_cannot_move_is_left_and_the_record_says_why(late, why):
    nowhere = state(pool(max_workers=0, memory_mib=1)) if "no other" in why else state(pool(), 1)
    if "no other" in why:
        late = replace(late, group=group("late", 1, Needs(cpus=64)))
    moves, decision = decided(nowhere, late=late)
    assert not moves
    assert why in decision.reason


def test_the_plan_can_be_made_again_from_its_record():
    shot = snapshot(state(pool(), 1), running=(slow(20 * MINUTE),), groups=(group("g", 3),))
    head, parts = split(shot)
    assert plan(join(head, parts)) == plan(shot)


ASK = Verdict(rule="ask", verb="escalate", reason="a person decides", select=(("market", ("spot",)),))


def climbing(ran=MINUTE, expected=120 * MINUTE, leaves=True, verdicts=(), needs=None, **changes):
    """A task on demand with a checkpoint, an hour or more before its end."""
    said = Needs(runtime_ms=expected, interruptible=True, checkpoint_ms=5 * MINUTE, **(needs or {}))
    climb = group("climb", 1, said, done_ms=ran, verdicts=verdicts)
    return Running(
        placement=9, group=climb, pool="on-demand", ran_ms=ran, expected_ms=expected, leaves=leaves, **changes
    )  # fmt: skip


def home(workers=1, **changes):
    """The on-demand pool, all its workers busy."""
    busy = (worker(f"on-demand-{n}", bound=1, cpus_free=0, slots=1, idle_since_ms=None) for n in range(workers))
    return state(pool(usd=2.0, max_workers=workers, **changes), workers=tuple(busy))


def back(task, *spot):
    return plan(snapshot(home(), *spot, running=(task,), now_ms=200 * MINUTE))


def test_a_task_on_demand_goes_back_to_a_spot_worker_that_is_free():
    made = back(climbing(), state(pool("spot", "spot", 0.3), 1))
    assert [(move.placement, move.pool) for move in made.moves] == [(9, "spot")]
    (decision,) = made.decisions
    assert (decision.verb, decision.pool) == ("move", "spot")
    assert re.match(r"spot again: the rest is \d+ % cheaper there \(\$", decision.reason)
    # the worker is kept for it though it is idle
    assert not made.drains


def test_a_spot_worker_is_launched_first_and_the_task_stays_until_it_is_there():
    made = back(climbing(), state(pool("spot", "spot", 0.3), 0))
    assert not made.moves
    assert [(launch.pool, launch.count) for launch in made.launches] == [("spot", 1)]
    assert "work can go on there (spot again" in made.launches[0].why


@pytest.mark.parametrize(
    ("task", "usd"),
    [
        pytest.param(climbing(ran=119 * MINUTE), 0.3, id="a minute is left"),
        pytest.param(climbing(), 1.7, id="spot is hardly cheaper"),
        pytest.param(climbing(beside=9), 1.0, id="others keep its worker up"),
        pytest.param(climbing(leaves_ms=900 * MINUTE), 0.3, id="its next checkpoint is far away"),
        pytest.param(climbing(leaves_for="spot"), 0.3, id="it was told before"),
        pytest.param(climbing(verdicts=(ASK,)), 0.3, id="a rule asks a person there"),
        pytest.param(climbing(needs={"budget": "none"}), 0.3, id="its budget has nothing left"),
        pytest.param(climbing(leaves=False), 0.3, id="it has no checkpoint"),
    ],
)
def test_a_task_on_demand_stays(task, usd):
    shared = {"slots": 10, "cpus": 10, "memory_mib": 40960} if task.beside else {}
    pools = home(**shared), state(pool("spot", "spot", usd), 1)
    made = plan(snapshot(*pools, running=(task,), now_ms=200 * MINUTE))
    assert not made.moves
    assert not made.launches


def test_it_stays_when_on_spot_it_could_miss_its_deadline():
    task = climbing()
    late = replace(task, group=replace(task.group, deadline_ms=(200 + 125) * MINUTE))
    assert not back(late, state(pool("spot", "spot", 0.3), 1)).moves
    roomy = replace(late, group=replace(task.group, deadline_ms=(200 + 600) * MINUTE))
    assert back(roomy, state(pool("spot", "spot", 0.3), 1)).moves


def test_two_tasks_do_not_leave_for_one_slot():
    one = climbing()
    two = replace(one, placement=10, group=replace(one.group, id="climb-2"))
    spot = state(pool("spot", "spot", 0.3, max_workers=1), 1)
    made = plan(snapshot(home(2), spot, running=(one, two), now_ms=200 * MINUTE))
    assert [move.placement for move in made.moves] == [9]
