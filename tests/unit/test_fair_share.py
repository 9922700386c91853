"""Teams and runs that wait side by side."""

from __future__ import annotations

from collections import Counter

from agent.model.needs import Needs
from agent.model.snapshot import Policy, Usage
from agent.planner.fair_share import rank
from agent.planner.plan import plan
from tests.values import MINUTE, group, pool, snapshot, state, worker

BATCH = Needs(runtime_ms=MINUTE, priority="batch")


def fleet(slots):
    """One pool of that many idle one-slot workers that cannot grow."""
    of = pool(max_workers=slots)
    return state(of, workers=tuple(worker(f"on-demand-{n}") for n in range(slots)))


def bound(made, by):
    """Tasks bound by team or run."""
    return Counter({name: sum(b.count for b in made.binds if by[b.group] == name) for name in set(by.values())})


def of(team, run, ready, **changes):
    return group(f"{team}-{run}-{changes.get('since_ms', 0)}", ready, team=team, root_run=run, **changes)


def test_two_teams_share_by_weight_however_much_one_has_asked_for_and_however_early():
    groups = (of("a", "r1", 20_000), of("b", "r2", 300, since_ms=5))
    teams = {g.id: g.team for g in groups}
    alike = plan(snapshot(fleet(40), groups=groups, now_ms=10))
    assert bound(alike, teams) == {"a": 20, "b": 20}
    three_to_one = plan(snapshot(fleet(40), groups=groups, now_ms=10, policy=Policy(shares=(("a", 3),))))
    assert bound(three_to_one, teams) == {"a": 30, "b": 10}


def test_what_a_team_has_already_counts():
    groups = (of("a", "r1", 100), of("b", "r2", 100))
    usage = (Usage(team="a", root_run="r1", slots=12),)
    made = plan(snapshot(fleet(16), groups=groups, usage=usage))
    assert bound(made, {g.id: g.team for g in groups}) == {"a": 2, "b": 14}


def test_what_one_does_not_need_the_others_get():
    groups = (of("a", "r1", 2), of("b", "r2", 100), of("c", "r3", 100))
    made = plan(snapshot(fleet(32), groups=groups))
    found = bound(made, {g.id: g.team for g in groups})
    assert found["a"] == 2
    assert found["b"] + found["c"] == 30
    assert abs(found["b"] - found["c"]) <= 2


def test_runs_of_a_team_get_alike():
    groups = tuple(of("a", f"r{n}", 1000 if n else 5, since_ms=n) for n in range(4))
    made = plan(snapshot(fleet(32), groups=groups))
    found = bound(made, {g.id: g.root_run for g in groups})
    assert found["r0"] == 5
    assert max(found.values()) - min(found[f"r{n}"] for n in (1, 2, 3)) <= 2


def test_a_higher_class_goes_first_and_none_waits_for_ever():
    critical = Needs(runtime_ms=MINUTE, priority="critical")
    urgent, patient = of("a", "r1", 50, needs=critical), of("b", "r2", 50, needs=BATCH, since_ms=0)
    young = plan(snapshot(fleet(8), groups=(urgent, patient), now_ms=MINUTE))
    assert bound(young, {urgent.id: "a", patient.id: "b"}) == {"a": 8, "b": 0}
    now = 2 * Policy().aging_ms
    fresh = of("a", "r1", 50, needs=critical, since_ms=now)
    old = plan(snapshot(fleet(8), groups=(fresh, patient), now_ms=now))
    assert bound(old, {fresh.id: "a", patient.id: "b"}) == {"a": 4, "b": 4}


def test_a_group_rises_one_class_at_a_time():
    aging = Policy().aging_ms
    assert [rank(of("a", "r", 1, needs=BATCH), Policy(), n * aging) for n in range(4)] == [2, 1, 0, 0]


def test_every_task_of_every_group_is_bound_or_held_once():
    groups = tuple(of(team, f"r{n}", 7, since_ms=n) for n, team in enumerate("aabbc"))
    made = plan(snapshot(fleet(11), groups=groups))
    for g in groups:
        assert (
            sum(b.count for b in made.binds if b.group == g.id) + sum(w.count for w in made.waits if w.group == g.id)
            == 7
        )
    assert sum(b.count for b in made.binds) == 11


def test_dasks_priority_is_an_order_within_a_class_and_a_run():
    """Urgent work goes first, whichever way it was said, and however long the rest has waited."""
    free = state(pool(max_workers=1), 1)
    said = [("old", "normal", 0), ("high", "normal", 100_000), ("low", "normal", -1_000), ("critical", "critical", 0)]
    groups = tuple(
        group(
            id,
            needs=Needs(runtime_ms=MINUTE, priority=priority),
            dask_priority=dask,
            since_ms=0 if id == "old" else 500,
        )
        for id, priority, dask in said
    )
    order = []
    while groups:
        made = plan(snapshot(free, groups=groups, now_ms=1_000))
        order += [bind.group for bind in made.binds]
        groups = tuple(g for g in groups if g.id not in order)
    assert order == ["critical", "high", "old", "low"]
