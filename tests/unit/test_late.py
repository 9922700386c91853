"""Tasks that take too long: moved or left, by cost."""

from __future__ import annotations

import pytest

from agent.ledger.parts import join, split
from agent.model.needs import Needs
from agent.model.snapshot import Slow
from agent.planner.plan import plan
from tests.values import MINUTE, group, pool, snapshot, state

NEEDS = Needs(runtime_ms=MINUTE, interruptible=True)


def slow(ran, done=0, leaves=True, **changes):
    return Slow(
        placement=7, group=group("late", 1, NEEDS, done_ms=done), pool="on-demand", ran_ms=ran, expected_ms=MINUTE, leaves=leaves,
        **changes,
    )  # fmt: skip


def decided(*states, late):
    made = plan(snapshot(*states, slow=(late,), now_ms=late.ran_ms))
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
        late = Slow(**{**{f: getattr(late, f) for f in late.__slots__}, "group": group("late", 1, Needs(cpus=64))})
    moves, decision = decided(nowhere, late=late)
    assert not moves
    assert why in decision.reason


def test_the_plan_can_be_made_again_from_its_record():
    shot = snapshot(state(pool(), 1), slow=(slow(20 * MINUTE),), groups=(group("g", 3),))
    head, parts = split(shot)
    assert plan(join(head, parts)) == plan(shot)
