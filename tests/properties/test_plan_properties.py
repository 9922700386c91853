"""What holds for every plan."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.ledger.parts import join, split
from agent.model import codec
from agent.model.needs import Needs
from agent.model.snapshot import Budget, Snapshot, Starting, Statistic
from agent.model.verdicts import Verdict
from agent.planner.feasible import why_not
from agent.planner.plan import plan
from tests.values import HOUR, MINUTE, group, pool, snapshot, state, worker

NOW = 10 * HOUR
POOLS = ("a", "b", "c", "d")

needs = st.builds(
    Needs,
    cpus=st.integers(1, 3), memory_mib=st.none() | st.integers(1, 9000), gpu=st.just("no"), runtime_ms=st.none() | st.integers(1, HOUR),
    max_runtime_ms=st.none() | st.integers(1, HOUR), checkpoint_ms=st.none() | st.integers(1000, HOUR), interruptible=st.booleans(),
    priority=st.sampled_from(["critical", "normal", "batch"]), budget=st.none() | st.just("team"),
)  # fmt: skip
verdicts = st.builds(
    Verdict,
    rule=st.sampled_from(["r1", "r2", "r3"]), verb=st.sampled_from(["forbid", "require", "prefer", "escalate"]), reason=st.just("because"),
    select=st.just(()) | st.sampled_from([(("market", ("spot",)),), (("pool", ("a", "b")),), (("kind", ("on-demand",)),)]),
    above_usd_micros=st.none() | st.integers(0, 100_000),
)  # fmt: skip


@st.composite
def pool_states(draw, name):
    market = draw(st.sampled_from(["spot", "on-demand"]))
    of = pool(
        name, market, draw(st.integers(0, 400)) / 100, cpus=draw(st.integers(1, 4)), slots=draw(st.integers(1, 4)), memory_mib=draw(st.integers(512, 8192)),
        max_workers=draw(st.integers(0, 5)), min_workers=0, startup_ms=draw(st.integers(0, MINUTE)), min_billing_ms=draw(st.sampled_from([0, HOUR])),
        provider=draw(st.sampled_from(["local", None])),
    )  # fmt: skip
    workers = tuple(
        worker(
            f"{name}-{n}", slots=of.slots, bound=bound, cpus_free=max(0, of.cpus - bound), memory_free_mib=of.memory_mib * max(0, of.slots - bound) // of.slots,
            idle_since_ms=None if bound else draw(st.integers(0, NOW)), frees_ms=NOW + 5000 if bound else None, draining=draw(st.booleans()), only_copy=draw(st.booleans()),
        )
        for n in range(draw(st.integers(0, 3)))
        for bound in [draw(st.integers(0, of.slots + 1))]
    )  # fmt: skip
    refused = draw(st.none() | st.integers(0, NOW))
    return state(
        of, workers=workers, hazard_per_hour=draw(st.integers(0, 200)) / 100 if market == "spot" else 0.0, refused_since_ms=refused,
        retry_ms=NOW + 3000 if refused is not None and draw(st.booleans()) else 0, starting=tuple(Starting(name=f"{name}-s{n}", asked_ms=NOW - 1000) for n in range(draw(st.integers(0, 1)))),
    )  # fmt: skip


@st.composite
def snapshots(draw) -> Snapshot:
    states = tuple(draw(pool_states(name)) for name in POOLS[: draw(st.integers(1, 4))])
    groups = tuple(
        group(
            f"g{n}", draw(st.integers(1, 200)), draw(needs), task_class=f"c{n % 2}", since_ms=NOW - draw(st.integers(0, HOUR)), verdicts=tuple(draw(st.lists(verdicts, max_size=3))),
            deadline_ms=draw(st.none() | st.integers(NOW - HOUR, NOW + 3 * HOUR)), approved=tuple(draw(st.lists(st.sampled_from(["r1", "r2"]), max_size=2))), approved_pools=tuple(draw(st.lists(st.sampled_from(POOLS), max_size=3))),
            override=draw(st.none() | st.sampled_from(POOLS)), rejected_by=draw(st.none() | st.just("ada")),
        )
        for n in range(draw(st.integers(1, 4)))
    )  # fmt: skip
    statistics = tuple(
        Statistic(
            task_class="c0",
            pool=p,
            n=draw(st.integers(1, 50)),
            log_mean=draw(st.floats(0, 14)),
            log_m2=draw(st.floats(0, 50)),
        )
        for p in ("", "a")
    )
    budget = Budget(
        name="team",
        limit_usd_micros=draw(st.integers(0, 2_000_000)),
        reserved_usd_micros=draw(st.integers(0, 1000)),
        max_runtime_ms=draw(st.none() | st.integers(1, HOUR)),
    )
    return snapshot(*states, groups=groups, now_ms=NOW, statistics=statistics, budgets=(budget,))


@given(snapshots())
@settings(max_examples=80, deadline=None)
def test_a_bound_pool_is_feasible_and_no_rule_forbids_it(shot):
    states, groups = {s.pool.name: s for s in shot.pools}, {g.id: g for g in shot.groups}
    for bind in plan(shot).binds:
        g, p = groups[bind.group], states[bind.pool]
        assert not why_not(g, p)
        assert g.needs.cpus <= p.pool.cpus
        assert (g.needs.memory_mib or 0) <= p.pool.memory_mib
        assert p.pool.market != "spot" or g.needs.interruptible
        assert not any(v.verb == "forbid" and v.selects(p.pool) for v in g.verdicts)
        assert all(v.selects(p.pool) for v in g.verdicts if v.verb == "require")
        assert g.override in (None, bind.pool)
        assert g.rejected_by is None


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_the_same_snapshot_gives_the_same_bytes(shot):
    assert codec.encode(plan(shot)) == codec.encode(plan(shot))


@given(snapshots(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_order_of_pools_and_groups_does_not_matter(shot, random):
    pools, groups = list(shot.pools), list(shot.groups)
    random.shuffle(pools)
    random.shuffle(groups)
    assert codec.encode(plan(shot)) == codec.encode(plan(replace(shot, pools=tuple(pools), groups=tuple(groups))))


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_a_snapshot_stored_in_parts_comes_back_and_gives_the_same_plan(shot):
    head, parts = split(shot)
    back = join(codec.decode(dict, codec.encode(head)), parts)
    assert back == shot
    assert codec.encode(plan(back)) == codec.encode(plan(shot))


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_no_chosen_pool_is_dearer_than_a_feasible_one_that_was_passed_over(shot):
    for decision in plan(shot).decisions:
        open_to = [o for o in decision.options if not o.why_not]
        if decision.verb in ("bind", "wait") and open_to:
            best = open_to[0]
            assert best.pool == decision.pool
            in_time = [o for o in open_to if not o.late_ms]
            assert all(best.score_usd_micros <= o.score_usd_micros for o in in_time)
            assert in_time or all((best.late_ms or 0) <= (o.late_ms or 0) for o in open_to)


@given(snapshots())
@settings(max_examples=60, deadline=None)
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


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_reservations_stay_within_the_budget(shot):
    reserved = sum(bind.count * bind.reserve_usd_micros for bind in plan(shot).binds if bind.budget == "team")
    assert reserved <= max(0, shot.budgets[0].left_usd_micros)


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_every_ready_task_is_bound_held_or_refused_exactly_once(shot):
    made = plan(shot)
    for g in shot.groups:
        bound = sum(b.count for b in made.binds if b.group == g.id)
        held = sum(w.count for w in made.waits if w.group == g.id)
        refused = g.ready if any(r.group == g.id for r in made.refusals) else 0
        assert bound + held + refused == g.ready
    assert all(w.why and w.release for w in made.waits)


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_no_worker_gets_more_than_it_holds_and_no_pool_more_than_its_limit(shot):
    made, states = plan(shot), {s.pool.name: s for s in shot.pools}
    for name, of in states.items():
        room = sum(max(0, w.slots - w.bound) for w in of.workers if not w.draining)
        assert sum(b.count for b in made.binds if b.pool == name and not b.ahead) <= room
        launched = sum(x.count for x in made.launches if x.pool == name)
        assert not launched or len(of.workers) + len(of.starting) + launched <= of.pool.max_workers


@given(snapshots())
@settings(max_examples=60, deadline=None)
def test_no_busy_worker_and_no_only_copy_is_drained(shot):
    workers = {w.name: w for s in shot.pools for w in s.workers}
    for drain in plan(shot).drains:
        assert workers[drain.worker].idle_since_ms is not None
        assert not workers[drain.worker].only_copy
