"""What holds for every plan."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.ledger.snapshots import join, split
from agent.model import codec
from agent.model.needs import Needs
from agent.model.pools import Pool
from agent.model.snapshot import Budget, Group, Policy, PoolState, Run, Snapshot, Starting, Statistic, Worker
from agent.model.verdicts import Verdict
from agent.planner.feasible import blocked
from agent.planner.plan import plan
from tests.values import HOUR, MINUTE, group, pool, snapshot, state, worker

NOW = 10 * HOUR
POOLS = ("a", "b", "c", "d")

SELECTS = ((), (("market", ("spot",)),), (("pool", ("a", "b")),), (("kind", ("on-demand",)),))


def _needs(r: Random) -> Needs:
    return Needs(
        cpus=r.randint(1, 3),
        memory_mib=r.choice([None, 500, r.randint(1, 9000)]),
        runtime_ms=r.choice([None, r.randint(1, HOUR)]),
        max_runtime_ms=r.choice([None, r.randint(1, HOUR)]),
        checkpoint_ms=r.choice([None, r.randint(1000, HOUR)]),
        interruptible=r.random() < 0.7,
        priority=r.choice(["critical", "normal", "batch"]),
        budget=r.choice([None, "team"]),
    )


def _verdict(r: Random) -> Verdict:
    verb = r.choice(["forbid", "require", "prefer", "escalate"])
    return Verdict(
        rule=f"r{r.randint(1, 3)}",
        verb=verb,
        reason="because",
        select=r.choice(SELECTS),
        above_usd_micros=r.choice([None, r.randint(0, 100_000)]),
    )


def _worker(r: Random, name: str, of: Pool) -> Worker:
    bound = r.choice([0, 0, r.randint(0, of.slots + 1)])
    return worker(
        name,
        slots=of.slots,
        bound=bound,
        cpus_free=max(0, of.cpus - bound),
        memory_free_mib=of.memory_mib * max(0, of.slots - bound) // of.slots,
        idle_since_ms=None if bound else r.randint(0, NOW),
        frees_ms=NOW + 5000 if bound else None,
        draining=r.random() < 0.2,
        only_copy=r.random() < 0.3,
    )


def _state(r: Random, name: str) -> PoolState:
    market = r.choice(["spot", "on-demand"])
    of = pool(
        name,
        market,
        r.randint(0, 400) / 100,
        cpus=r.randint(1, 8),
        slots=r.randint(1, 4),
        memory_mib=r.randint(512, 8192),
        max_workers=r.randint(0, 5),
        startup_ms=r.randint(0, MINUTE),
        min_billing_ms=r.choice([0, HOUR]),
        provider=r.choice(["local", "local", None]),
    )
    refused = r.choice([None, None, r.randint(0, NOW)])
    return state(
        of,
        workers=tuple(_worker(r, f"{name}-{n}", of) for n in range(r.randint(0, 3))),
        hazard_per_hour=r.random() * 2 if market == "spot" else 0.0,
        returns_per_hour=r.choice([0.0, r.random() * 3]),
        lasts_until_ms=r.choice([None, None, NOW + r.randint(0, HOUR)]),
        back_ms=r.choice([None, None, NOW + r.randint(0, HOUR)]),
        refused_since_ms=refused,
        retry_ms=NOW + 3000 if refused is not None and r.random() < 0.5 else 0,
        starting=tuple(Starting(name=f"{name}-s{n}", asked_ms=NOW - 1000) for n in range(r.randint(0, 1))),
    )


def _group(r: Random, n: int) -> Group:
    return group(
        f"g{n}",
        r.choice([1, 3, r.randint(1, 200)]),
        _needs(r),
        task_class=f"c{n % 2}",
        since_ms=NOW - r.randint(0, HOUR),
        verdicts=tuple(_verdict(r) for _ in range(r.choice([0, 0, 1, 2]))),
        deadline_ms=r.choice([None, r.randint(NOW - HOUR, NOW + 3 * HOUR)]),
        approved=tuple(r.sample(["r1", "r2"], r.randint(0, 2))),
        approved_pools=tuple(r.sample(POOLS, r.randint(0, 3))),
        override=r.choice([None] * 5 + list(POOLS)),
        rejected_by=r.choice([None] * 9 + ["ada"]),
        preemptions=r.randint(0, 2),
        losses=r.randint(0, 2),
        tail_ms=r.choice([0, r.randint(0, HOUR)]),
        done_ms=r.choice([0, 0, r.randint(0, HOUR)]),
        checkpoint_pool=r.choice(["", *POOLS]),
        checkpoint_mib=r.choice([0, 500]),
        root_run=f"run{n % 2}",
    )


def _run(r: Random, name: str) -> Run:
    return Run(
        root_run=name,
        deadline_ms=NOW + r.randint(0, HOUR),
        work_ms=r.randint(0, 9 * HOUR),
        path_ms=r.randint(0, HOUR),
        tasks=9,
        ahead=r.choice([0, 3]),
        next_ms=r.choice([None, NOW + r.randint(0, HOUR)]),
    )


def world(seed: int) -> Snapshot:
    """Pools, groups, statistics and a budget, of every kind the planner may meet."""
    r = Random(seed)
    statistics = tuple(
        Statistic(task_class="c0", pool=p, n=r.randint(1, 50), log_mean=r.uniform(0, 14), log_m2=r.uniform(0, 50))
        for p in ("", "a")
    )
    budget = Budget(
        name="team",
        limit_usd_micros=r.randint(0, 2_000_000),
        reserved_usd_micros=r.randint(0, 1000),
        max_runtime_ms=r.choice([None, r.randint(1, HOUR)]),
    )
    return snapshot(
        *(_state(r, name) for name in POOLS[: r.randint(1, 4)]),
        groups=tuple(_group(r, n) for n in range(r.randint(1, 4))),
        now_ms=NOW,
        statistics=statistics,
        budgets=(budget,),
        runs=tuple(_run(r, f"run{n}") for n in range(r.randint(0, 2))),
        graphs=r.random() < 0.3,
        policy=Policy(
            egress_usd_micros_per_gib=r.choice([0, 90_000]),
            reserve_losses=r.choice([0.0, 2.0]),
            queue_percent=r.choice([0, 65, 100]),
        ),
    )


#: hypothesis chooses the world, a plain generator fills it: an order of magnitude more worlds a second than drawing
#: each field
worlds = st.integers(0, 2**32).map(world)


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_a_bound_pool_is_feasible_and_no_rule_forbids_it(shot):
    states, groups = {s.pool.name: s for s in shot.pools}, {g.id: g for g in shot.groups}
    for decision in plan(shot).decisions:
        if decision.pool is None:
            continue
        g, p = groups[decision.group], states[decision.pool]
        assert blocked(g, p) is None
        assert g.needs.cpus <= p.pool.cpus
        assert (g.needs.memory_mib or 0) <= p.pool.memory_mib
        assert p.pool.market != "spot" or g.needs.interruptible
        assert not any(v.verb == "forbid" and v.selects(p.pool) for v in g.verdicts)
        assert all(v.selects(p.pool) for v in g.verdicts if v.verb == "require")
        assert g.override in (None, decision.pool)
        assert g.rejected_by is None


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_the_same_snapshot_gives_the_same_bytes(shot):
    assert codec.encode(plan(shot)) == codec.encode(plan(shot))


@given(worlds, st.randoms())
@settings(max_examples=400, deadline=None)
def test_the_order_of_pools_and_groups_does_not_matter(shot, random):
    pools, groups = list(shot.pools), list(shot.groups)
    random.shuffle(pools)
    random.shuffle(groups)
    assert codec.encode(plan(shot)) == codec.encode(plan(replace(shot, pools=tuple(pools), groups=tuple(groups))))


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_a_snapshot_stored_in_parts_comes_back_and_gives_the_same_plan(shot):
    head, parts = split(shot)
    back = join(codec.decode(dict, codec.encode(head)), parts)
    assert back == shot
    assert codec.encode(plan(back)) == codec.encode(plan(shot))


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_no_chosen_pool_is_dearer_than_a_feasible_one_that_was_passed_over(shot):
    for decision in plan(shot).decisions:
        open_to = [o for o in decision.options if not o.why_not]
        if decision.verb in ("bind", "wait") and open_to:
            best = open_to[0]
            assert best.pool == decision.pool
            in_time = [o for o in open_to if not o.late_ms]
            assert all(best.score_usd_micros <= o.score_usd_micros for o in in_time)
            assert in_time or all((best.late_ms or 0) <= (o.late_ms or 0) for o in open_to)


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_nothing_above_a_threshold_is_bound_unapproved(shot):
    made, groups = plan(shot), {g.id: g for g in shot.groups}
    pools = {s.pool.name: s.pool for s in shot.pools}
    for bind in made.binds:
        g = groups[bind.group]
        first = next(d for d in made.decisions if d.group == g.id)
        usd = first.options[0].usd_micros * g.ready
        for verdict in g.verdicts:
            if (
                verdict.verb == "escalate"
                and verdict.selects(pools[first.options[0].pool])
                and usd > (verdict.above_usd_micros if verdict.above_usd_micros is not None else -1)
            ):
                assert verdict.rule in g.approved
                assert first.options[0].pool in g.approved_pools


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_reservations_stay_within_the_budget(shot):
    reserved = sum(bind.count * bind.reserve_usd_micros for bind in plan(shot).binds if bind.budget == "team")
    assert reserved <= max(0, shot.budgets[0].left_usd_micros)


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_every_ready_task_is_bound_held_or_refused_exactly_once(shot):
    made = plan(shot)
    for g in shot.groups:
        bound = sum(b.count for b in made.binds if b.group == g.id)
        held = sum(w.count for w in made.waits if w.group == g.id)
        refused = g.ready if any(r.group == g.id for r in made.refusals) else 0
        assert bound + held + refused == g.ready
    assert all(w.why and w.release for w in made.waits)


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_no_worker_gets_more_than_it_holds_and_no_pool_more_than_its_limit(shot):
    made, states = plan(shot), {s.pool.name: s for s in shot.pools}
    for name, of in states.items():
        room = sum(max(0, w.slots - w.bound) for w in of.workers if not w.draining)
        assert sum(b.count for b in made.binds if b.pool == name and not b.ahead) <= room
        launched = sum(x.count for x in made.launches if x.pool == name)
        assert not launched or len(of.workers) + len(of.starting) + launched <= of.pool.max_workers


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_no_busy_worker_and_no_only_copy_is_drained(shot):
    workers = {w.name: w for s in shot.pools for w in s.workers}
    for drain in plan(shot).drains:
        assert workers[drain.worker].idle_since_ms is not None
        assert not workers[drain.worker].only_copy


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_spot_is_taken_only_where_a_loss_can_still_be_made_good_on_demand(shot):
    made, states, groups = plan(shot), {s.pool.name: s for s in shot.pools}, {g.id: g for g in shot.groups}
    grows = [s for s in shot.pools if s.pool.market == "on-demand" and s.pool.provider is not None]
    safe = [s for s in grows if s.workers or s.starting or s.pool.max_workers]
    for decision in made.decisions:
        g = groups[decision.group]
        if decision.verb not in ("bind", "wait") or g.deadline_ms is None or not safe:
            continue
        best, in_time = decision.options[0], any(not o.late_ms and not o.why_not for o in decision.options)
        state = states[best.pool]
        if state.pool.market != "spot" or not in_time or state.lasts_until_ms is not None or best.waits_for == "spot":
            continue
        run = max(1, best.estimate.high_ms - g.done_ms)
        lost = min(run, g.needs.checkpoint_ms or run)
        latest = g.deadline_ms - shot.policy.margin_ms - g.tail_ms - run - lost - min(s.startup_ms for s in safe)
        assert shot.now_ms <= latest


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_a_score_is_the_sum_of_its_named_parts(shot):
    for decision in plan(shot).decisions:
        for o in decision.options:
            if not o.why_not:
                whole = o.usd_micros + o.delay_usd_micros
                assert o.score_usd_micros == (whole * shot.policy.prefer_percent // 100 if o.preferred_by else whole)


@given(worlds)
@settings(max_examples=400, deadline=None)
def test_the_plan_is_looked_at_again_before_a_held_task_must_go(shot):
    made = plan(shot)
    assert made.replan_at_ms is None or made.replan_at_ms > shot.now_ms
