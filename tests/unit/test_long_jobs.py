"""Long jobs in a plan: bound, launched for, held, moved; and what is believed of their zones, live and rebuilt."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest

from agent.model.leases import EndCause
from agent.model.market import MarketBeliefs
from agent.model.needs import Needs
from agent.model.pools import PriceStep
from agent.model.snapshot import Budget, PoolState, Running, Snapshot, Starting, Statistic
from agent.model.verdicts import Verdict
from agent.planner.plan import plan
from agent.state import history
from agent.state.cluster import ClusterState
from agent.state.markets import TICK_MS, ZoneWatch
from tests.values import HOUR, group, pool, snapshot, state, worker

NEEDS = Needs(interruptible=True, checkpoint_ms=60_000, runtime_ms=10 * HOUR)
A, B = (
    pool(f"spot-{zone}", "spot", usd, labels=(("zone", f"us-east-1{zone}"),)) for zone, usd in (("a", 1.0), ("b", 1.1))
)
SAFE = pool(usd=3.0, labels=(("zone", "us-east-1a"),))


#: ten hours, as often before
KNOWN = (Statistic(task_class="work", pool="", n=200, log_mean=math.log(10 * HOUR), log_m2=0.0),)


def believed(*refused: str, now_ms: int = 0) -> MarketBeliefs:
    """The market of both zones, where some have just refused."""
    market = ZoneWatch("small", (A, B))
    for name in refused:
        market.refused(name, now_ms)
    return market.value(now_ms)


def shot(*states: PoolState, refused: tuple[str, ...] = (), left_h: float = 18, **changes) -> Snapshot:
    """A job of ten hours with its deadline."""
    states = states or (state(A), state(B), state(SAFE))
    job = group(needs=NEEDS, deadline_ms=round(left_h * HOUR), **changes.pop("job", {}))
    return snapshot(*states, groups=(job,), markets=(believed(*refused),), statistics=KNOWN, **changes)


def running(on: str, ran_h: float = 2, **changes) -> Running:
    values = {
        "placement": 7, "group": group(needs=NEEDS, deadline_ms=30 * HOUR, done_ms=round(ran_h * HOUR)), "pool": on,
        "ran_ms": round(ran_h * HOUR), "expected_ms": 10 * HOUR, "leaves": True,
    }  # fmt: skip
    return Running(**{**values, **changes})


def moved(*states: PoolState, refused: tuple[str, ...] = (), **changes):
    return plan(snapshot(*states, markets=(believed(*refused),), statistics=KNOWN, running=(running(**changes),)))


def test_it_asks_the_zone_that_costs_least_in_the_end_and_says_so():
    made = plan(shot())
    assert [(launch.pool, launch.count) for launch in made.launches] == [("spot-a", 1)]
    [wait] = made.waits
    assert wait.reason == "launch"
    assert wait.why.startswith("long job: spot-a: the rest costs $")
    assert "on spot-b" in wait.why
    assert "the deadline leaves 7 h" in wait.why
    decision = made.decisions[wait.decision]
    assert decision.pool == "spot-a"
    assert all(option.to_go_usd_micros for option in decision.options)
    # ten hours there, losses included, and no more than on demand
    assert 10_000_000 < decision.options[0].to_go_usd_micros < 30_000_000


def test_a_zone_that_refused_is_passed_over_until_the_next_tick():
    made = plan(shot(refused=("spot-a",)))
    assert [launch.pool for launch in made.launches] == ["spot-b"]


def test_it_waits_for_a_zone_while_slack_is_worth_it_and_looks_again_at_the_next_tick():
    made = plan(shot(refused=("spot-a", "spot-b")))
    assert not made.launches
    [wait] = made.waits
    assert wait.reason == "spot"
    assert wait.why.startswith("long job: waits for spot-")
    assert "on on-demand now" in wait.why
    assert made.replan_at_ms == TICK_MS + 1


def test_what_the_pool_itself_was_refused_before_does_not_keep_it_from_asking_in_a_new_tick():
    market = ZoneWatch("small", (A, B))
    market.refused("spot-a", 0)
    market.refused("spot-b", 0)
    states = state(A, refused_since_ms=0, retry_ms=HOUR), state(B, refused_since_ms=0, retry_ms=HOUR), state(SAFE)
    made = plan(replace(shot(*states), now_ms=TICK_MS, markets=(market.value(TICK_MS),)))
    assert [launch.pool for launch in made.launches] == ["spot-a"]


def test_a_worker_that_was_granted_and_never_came_is_not_asked_for_again_at_once():
    market = ZoneWatch("small", (A, B))
    market.granted("spot-a", 0)
    market.ended("spot-a", False, 1_000)
    states = state(A, refused_since_ms=1_000, retry_ms=3_000), state(B), state(SAFE)
    made = plan(replace(shot(*states), now_ms=1_500, markets=(market.value(1_500),)))
    assert [launch.pool for launch in made.launches] == ["spot-b"]


def test_a_worker_that_has_been_starting_for_far_too_long_is_not_waited_for():
    overdue = (Starting(name="w", asked_ms=0),)
    made = plan(replace(shot(state(A, starting=overdue), state(B), state(SAFE)), now_ms=10 * 60_000))
    assert made.launches
    soon = plan(replace(shot(state(A, starting=overdue), state(B), state(SAFE)), now_ms=12_000))
    assert not soon.launches


def test_of_pools_on_demand_one_that_can_serve_now_is_taken_though_another_is_nearer():
    far = pool("far", usd=3.1, labels=(("zone", "eu-west-1a"),))
    full = state(replace(SAFE, max_workers=1), starting=(), workers=(worker("busy", bound=1, cpus_free=0),))
    made = plan(shot(state(A), state(B), full, state(far), left_h=10.01))
    assert [launch.pool for launch in made.launches] == ["far"]


def test_where_spot_is_not_cheaper_it_is_placed_as_any_other_task():
    dear = [state(replace(each, price=(PriceStep(since_ms=0, usd_micros_per_hour=3_000_000),))) for each in (A, B)]
    made = plan(shot(*dear, state(SAFE)))
    assert not any("long job" in decision.reason for decision in made.decisions)


def test_nothing_is_launched_for_a_budget_that_is_used_up():
    budget = Budget(name="b", limit_usd_micros=1, max_runtime_ms=HOUR)
    job = {"needs": replace(NEEDS, budget="b")}
    made = plan(replace(shot(), groups=(group(deadline_ms=18 * HOUR, **job),), budgets=(budget,)))
    assert made.waits[0].reason == "budget"
    assert not made.launches


def test_two_slots_of_a_worker_that_starts_are_for_two_jobs():
    wide = [replace(each, slots=2, cpus=2) for each in (A, B)]
    made = plan(shot(*map(state, wide), state(SAFE), job={"ready": 2}))
    assert [(launch.pool, launch.count) for launch in made.launches] == [("spot-a", 1)]


def test_the_slot_of_a_task_that_was_told_to_leave_for_it_is_nobody_elses():
    leaves = running("on-demand", leaves_for="spot-a")
    other = replace(running("on-demand"), placement=8, group=replace(running("x").group, id="other"))
    states = state(A, idle=1), state(B), state(SAFE)
    shown = snapshot(*states, markets=(believed(),), statistics=KNOWN, running=(leaves, other))
    made = plan(shown)
    assert not made.moves, "the only free worker is kept for the first"


def test_a_launch_that_fails_by_a_fault_is_put_off():
    made = plan(shot(state(A, retry_ms=HOUR, fault="no quota"), state(B), state(SAFE)))
    assert [launch.pool for launch in made.launches] == ["spot-b"]


def test_the_deadline_comes_first():
    made = plan(shot(left_h=10.01))
    assert [launch.pool for launch in made.launches] == ["on-demand"], made.waits[0].why


def test_a_worker_that_is_there_is_taken_and_one_that_starts_is_waited_for():
    made = plan(shot(state(A, idle=1), state(B), state(SAFE)))
    assert [(bind.pool, bind.count) for bind in made.binds] == [("spot-a", 1)]
    assert made.decisions[made.binds[0].decision].reason.startswith("long job: spot-a: ")
    made = plan(shot(state(A), state(B, starting=(Starting(name="w", asked_ms=0),)), state(SAFE), left_h=30))
    assert not made.launches
    assert made.decisions[made.waits[0].decision].pool == "spot-b"


def test_each_of_several_jobs_gets_a_worker_of_its_own():
    made = plan(shot(job={"ready": 3}))
    assert sum(launch.count for launch in made.launches) == 3
    [wait] = made.waits
    assert wait.count == 3


def test_a_rule_asks_a_person_about_the_pool_it_goes_to():
    ask = Verdict(rule="dear", verb="escalate", reason="costs", select=(("pool", ("spot-a",)),))
    made = plan(shot(job={"verdicts": (ask,)}))
    assert made.waits[0].reason == "approval"
    assert not made.launches


@pytest.mark.parametrize(
    ("needs", "deadline_ms"),
    [
        (replace(NEEDS, checkpoint_ms=None), 30 * HOUR),
        (replace(NEEDS, interruptible=False), 30 * HOUR),
        (replace(NEEDS, runtime_ms=HOUR // 10), 30 * HOUR),
        (NEEDS, None),
    ],
)
def test_anything_else_is_no_long_job(needs, deadline_ms):
    job = group(needs=needs, deadline_ms=deadline_ms)
    made = plan(snapshot(state(A), state(B), state(SAFE), groups=(job,), markets=(believed(),)))
    assert not any("long job" in decision.reason for decision in made.decisions)


def test_nor_is_one_that_may_run_in_one_zone_only():
    made = plan(shot(state(A), state(B), state(SAFE), job={"override": "spot-a"}))
    assert not any("long job" in decision.reason for decision in made.decisions)


def test_on_demand_it_has_a_spot_worker_launched_and_leaves_when_that_is_there():
    made = moved(state(A), state(B), state(SAFE), on="on-demand")
    assert [launch.pool for launch in made.launches] == ["spot-a"]
    assert not made.moves
    made = moved(state(A, idle=1), state(B), state(SAFE), on="on-demand")
    assert [(move.placement, move.pool) for move in made.moves] == [(7, "spot-a")]
    assert made.decisions[made.moves[0].decision].verb == "move"
    assert not made.drains


def test_a_move_is_made_though_it_could_be_made_later_but_not_for_less_than_it_costs():
    near = replace(B, price=(PriceStep(since_ms=0, usd_micros_per_hour=990_000),))
    made = moved(state(A), state(near, idle=1), state(SAFE), on="spot-a")
    assert made.moves, "a cent an hour, for hours"
    slow = replace(A, idle_ms=HOUR)
    made = moved(state(slow), state(near, idle=1), state(SAFE), on="spot-a")
    assert not made.moves, "an idle hour of the old worker is dearer"
    long_idle = replace(SAFE, idle_ms=HOUR // 2)
    made = moved(state(A, idle=1), state(B), state(long_idle), on="on-demand")
    assert made.moves


def test_it_stays_where_nothing_is_better():
    made = moved(state(A), state(B), state(SAFE), on="spot-a")
    assert not made.acts
    made = moved(state(A), state(B), state(SAFE), on="on-demand", refused=("spot-a", "spot-b"))
    assert not made.acts


def test_it_cannot_leave_before_it_has_a_checkpoint():
    made = moved(state(A, idle=1), state(B), state(SAFE), on="on-demand", leaves=False)
    assert not made.moves


# ------------------------------------------------------------------ beliefs
def clusters() -> ClusterState:
    return ClusterState((A, B, SAFE), lambda facts: (), frozenset())


def test_zones_of_one_size_are_a_market_and_a_single_zone_is_none():
    assert [market.zones for market in clusters().fleet.markets.all] == [("spot-a", "spot-b")]
    alone = ClusterState((A, SAFE), lambda facts: (), frozenset())
    assert alone.fleet.markets.all == ()
    assert alone.fleet.markets.value(0) == ()
    apart = ClusterState((A, replace(B, cpus=2)), lambda facts: (), frozenset())
    assert apart.fleet.markets.all == ()


def test_a_worker_that_is_kept_says_that_its_zone_is_up_and_one_that_is_taken_that_it_is_down():
    market = ZoneWatch("small", (A, B))
    market.granted("spot-a", 0)
    kept = market.value(10 * TICK_MS)
    assert kept.zones[0].now is True
    assert kept.zones[0].up == pytest.approx((1.0, 1.0))
    assert kept.zones[0].up_h > market.value(0).zones[1].up_h
    market.ended("spot-a", True, 11 * TICK_MS)
    assert market.value(11 * TICK_MS).zones[0].now is False
    later = market.value(13 * TICK_MS).zones[0]
    assert later.now is None
    assert 0 < later.up[0] < 1
    assert later.losses == kept.zones[0].losses + 1


def test_a_market_that_is_played_fast_has_short_ticks():
    market = ZoneWatch("fast", [replace(each, speed=300) for each in (A, B)])
    assert market.value(2_000).ends_ms == 3_000
    market.refused("spot-a", 2_100)
    assert market.value(2_999).zones[0].now is False
    assert market.value(3_000).zones[0].now is None


@pytest.mark.parametrize("seed", range(6))
def test_beliefs_that_are_rebuilt_from_leases_are_those_of_live(seed):
    random, live, leases = Random(seed), clusters(), {}
    book, now = live.fleet.leases, 1_000_000
    for _ in range(60):
        now += random.choice((1_000, 60_000, TICK_MS, 40 * TICK_MS))
        live.fleet.markets.value(now)
        kept = [each for each in book.open.values() if each.ended_ms is None]
        if kept and random.random() < 0.4:
            book.end(
                random.choice(kept).id, now, random.choice((EndCause.INTERRUPTED, EndCause.DRAINED, EndCause.DIED))
            )
        else:
            lease = book.draft(random.choice((A, B)), now, "work")
            book.ask(lease)
            now += 1
            if random.random() < 0.5:
                book.refused(lease.id, now, "no capacity")
            else:
                book.granted(lease.id, now)
        leases |= {each.id: each for each in book.open.values()}
    again = clusters()
    history.learn(again, (), leases.values())
    assert again.fleet.markets.value(now) == live.fleet.markets.value(now)
