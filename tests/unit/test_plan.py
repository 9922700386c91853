"""What the planner decides, case by case."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from agent.model.needs import Needs
from agent.model.snapshot import Budget, Policy, Starting, Statistic
from agent.model.verdicts import Verdict
from agent.planner.estimate import by_shape, estimate, interrupted
from agent.planner.explain import read_aloud
from agent.planner.plan import plan, ranked_alone
from agent.state.statistics import Statistics
from tests.values import HOUR, MINUTE, group, pool, snapshot, state, worker

SPOT = pool("spot", "spot", 0.09, interruptions_per_1000_hours=100)
ON_DEMAND = pool()
GPU = pool("gpu", usd=3.6, gpus=1, gpu_model="T4")


def decided(shot):
    (decision,) = plan(shot).decisions
    return decision


def test_an_idle_spot_worker_beats_an_idle_on_demand_one():
    assert decided(snapshot(state(SPOT, 1), state(ON_DEMAND, 1), groups=(group(),))).pool == "spot"


def test_a_task_that_is_not_interruptible_never_goes_to_spot():
    said = decided(snapshot(state(SPOT, 1), state(ON_DEMAND, 1), groups=(group(needs=Needs(runtime_ms=MINUTE)),)))
    assert said.pool == "on-demand"
    assert "not said to be interruptible" in said.options[-1].why_not


def test_a_long_task_on_a_stormy_spot_market_goes_on_demand():
    long = group(needs=Needs(runtime_ms=4 * HOUR, interruptible=True))
    assert (
        decided(snapshot(state(SPOT, 1, hazard_per_hour=1.0), state(ON_DEMAND, 1), groups=(long,))).pool == "on-demand"
    )


def test_the_same_task_stays_on_spot_when_it_checkpoints():
    long = group(needs=Needs(runtime_ms=4 * HOUR, interruptible=True, checkpoint_ms=5 * MINUTE))
    assert decided(snapshot(state(SPOT, 1, hazard_per_hour=1.0), state(ON_DEMAND, 1), groups=(long,))).pool == "spot"


def test_a_full_cheap_pool_wins_over_an_empty_dear_one_until_the_queue_is_long():
    busy = state(SPOT, workers=(worker("spot-0", bound=1, cpus_free=0, idle_since_ms=None, frees_ms=1000),))
    dear = state(pool(usd=36.0), 1)
    assert decided(snapshot(busy, dear, groups=(group(),))).pool == "spot"
    capped = state(pool("spot", "spot", 0.09, max_workers=1), workers=busy.workers)
    many = plan(snapshot(capped, dear, groups=(group(ready=200),)))
    assert [bind.pool for bind in many.binds] == ["on-demand"]


def test_nothing_there_means_a_launch_and_a_hold_that_says_so():
    made = plan(snapshot(state(SPOT), state(ON_DEMAND), groups=(group(),)))
    assert [(x.pool, x.count) for x in made.launches] == [("spot", 1)]
    assert (made.waits[0].reason, made.waits[0].count) == ("launch", 1)


def test_a_worker_that_is_starting_is_not_launched_again():
    made = plan(snapshot(state(SPOT, starting=(Starting(name="spot-0", asked_ms=0),)), groups=(group(),), now_ms=1000))
    assert not made.launches


def test_more_waiting_work_launches_more_workers_up_to_the_limit():
    counts = [plan(snapshot(state(SPOT), groups=(group(ready=n),))).launches[0].count for n in (1, 2, 100)]
    assert counts == [1, 2, 4]


def test_refused_spot_is_waited_for_a_while_then_on_demand_is_taken():
    def refused_for(ms):
        gone = state(SPOT, refused_since_ms=0, retry_ms=ms + 2000)
        return decided(snapshot(gone, state(ON_DEMAND), groups=(group(),), now_ms=ms)).pool

    assert refused_for(1_000) == "spot"
    assert refused_for(10 * MINUTE) == "on-demand"


def test_a_deadline_takes_the_pool_that_meets_it():
    slow = state(SPOT, refused_since_ms=0, retry_ms=5 * MINUTE)
    hurried = group(deadline_ms=6 * MINUTE)
    said = decided(snapshot(slow, state(ON_DEMAND, 1), groups=(hurried,)))
    assert said.pool == "on-demand"
    assert "meets the deadline" in said.reason


def test_a_deadline_nobody_meets_takes_the_least_late():
    said = decided(
        snapshot(state(SPOT, refused_since_ms=0, retry_ms=MINUTE), state(ON_DEMAND, 1), groups=(group(deadline_ms=1),))
    )
    assert (said.pool, "late" in said.reason) == ("on-demand", True)


def test_the_tail_behind_a_task_counts_against_its_deadline():
    free = group(deadline_ms=10 * MINUTE)
    tailed = group(deadline_ms=10 * MINUTE, tail_ms=9 * MINUTE)
    late = [decided(snapshot(state(ON_DEMAND, 1), groups=(g,))).options[0].late_ms for g in (free, tailed)]
    assert late[0] == 0
    assert late[1] > 0


def test_a_need_nobody_meets_is_refused_with_the_nearest_pool_and_what_it_lacks():
    made = plan(snapshot(state(SPOT, 1), state(ON_DEMAND, 1), groups=(group(needs=Needs(memory_mib=8192)),)))
    assert not made.binds
    assert "nearest is on-demand (1 cpu, 4 GiB): needs 8 GiB and its workers have 4 GiB" in made.refusals[0].why


def test_rules_that_leave_no_pool_refuse_with_the_rule():
    never = Verdict(rule="never", verb="forbid", reason="because")
    made = plan(snapshot(state(ON_DEMAND, 1), groups=(group(verdicts=(never,)),)))
    assert "rule never forbids it: because" in made.refusals[0].why


def test_a_preferred_pool_wins_when_it_is_a_little_dearer():
    like = Verdict(rule="like", verb="prefer", reason="people like it", select=(("pool", ("b",)),))
    states = state(pool("a", usd=0.36), 1), state(pool("b", usd=0.40), 1)
    assert decided(snapshot(*states, groups=(group(),))).pool == "a"
    said = decided(snapshot(*states, groups=(group(verdicts=(like,)),)))
    assert (said.pool, said.options[0].preferred_by) == ("b", ("like",))


def test_above_its_threshold_a_rule_asks_and_an_approval_lets_it_run():
    ask = Verdict(rule="money", verb="escalate", reason="dear", above_usd_micros=1)
    made = plan(snapshot(state(ON_DEMAND, 1), groups=(group(verdicts=(ask,)),)))
    assert (made.binds, made.waits[0].reason) == ((), "approval")
    made = plan(
        snapshot(
            state(ON_DEMAND, 1),
            groups=(group(verdicts=(ask,), approved=("money",), approved_pools=("on-demand",), approved_by="ada"),),
        )
    )
    assert len(made.binds) == 1
    assert "approved by ada" in read_aloud(made.decisions[0])


def test_an_approval_up_to_a_sum_does_not_cover_more():
    ask = Verdict(rule="money", verb="escalate", reason="dear", above_usd_micros=1)
    made = plan(
        snapshot(
            state(ON_DEMAND, 1),
            groups=(
                group(
                    ready=100,
                    verdicts=(ask,),
                    approved=("money",),
                    approved_pools=("on-demand",),
                    approved_usd_micros=10,
                ),
            ),
        )
    )
    assert not made.binds


def test_an_approval_holds_for_the_pool_it_was_about():
    ask = Verdict(rule="money", verb="escalate", reason="dear")
    allowed = group(verdicts=(ask,), approved=("money",), approved_pools=("elsewhere",))
    assert plan(snapshot(state(ON_DEMAND, 1), groups=(allowed,))).waits[0].reason == "approval"


def test_a_task_that_kills_its_workers_is_refused_after_so_many():
    assert plan(snapshot(state(ON_DEMAND, 1), groups=(group(losses=4),))).binds
    made = plan(snapshot(state(ON_DEMAND, 1), groups=(group(losses=5),)))
    assert "5 workers died under it" in made.refusals[0].why


def test_a_rejected_group_is_refused_by_name():
    ask = Verdict(rule="money", verb="escalate", reason="dear", above_usd_micros=1)
    made = plan(snapshot(state(ON_DEMAND, 1), groups=(group(verdicts=(ask,), rejected_by="ada"),)))
    assert (made.refusals[0].rejected, made.refusals[0].why) == (True, "rejected by ada")


def test_an_override_takes_the_chosen_pool_and_rules_still_hold():
    assert (
        decided(snapshot(state(SPOT, 1), state(ON_DEMAND, 1), groups=(group(override="on-demand"),))).pool
        == "on-demand"
    )
    forbid = Verdict(rule="no", verb="forbid", reason="r", select=(("pool", ("on-demand",)),))
    assert plan(
        snapshot(state(SPOT, 1), state(ON_DEMAND, 1), groups=(group(override="on-demand", verdicts=(forbid,)),))
    ).refusals


def test_a_budget_reserves_the_longest_runtime_and_holds_what_it_cannot_cover():
    one = Needs(runtime_ms=MINUTE, max_runtime_ms=HOUR, budget="team")
    # a task reserves an hour and the start-up at $0.36: a dollar covers two
    made = plan(
        snapshot(
            state(ON_DEMAND, 4),
            groups=(group(ready=4, needs=one),),
            budgets=(Budget(name="team", limit_usd_micros=1_000_000),),
        )
    )
    assert sum(bind.count for bind in made.binds) == 2
    assert made.waits[0].reason == "budget"
    assert sum(bind.count * bind.reserve_usd_micros for bind in made.binds) <= 1_000_000


def test_a_budget_without_a_longest_runtime_asks_for_one():
    made = plan(
        snapshot(
            state(ON_DEMAND, 1),
            groups=(group(needs=Needs(budget="team")),),
            budgets=(Budget(name="team", limit_usd_micros=10**9),),
        )
    )
    assert "max_runtime" in made.waits[0].why


def test_critical_work_goes_first():
    calm, urgent = group("a"), group("b", needs=Needs(runtime_ms=MINUTE, priority="critical"))
    made = plan(snapshot(state(pool(max_workers=1), 1), groups=(calm, urgent)))
    assert [bind.group for bind in made.binds] == ["b"]


def test_an_idle_worker_is_drained_after_its_time_but_not_with_the_only_copy_of_a_result():
    assert plan(snapshot(state(ON_DEMAND, 1), now_ms=29_000)).drains == ()
    assert plan(snapshot(state(ON_DEMAND, 1), now_ms=31_000)).drains[0].worker == "on-demand-0"
    keeps = state(ON_DEMAND, workers=(worker("on-demand-0", only_copy=True),))
    assert plan(snapshot(keeps, now_ms=31_000)).drains == ()


def test_a_paid_minimum_is_used_up_before_an_idle_worker_ends():
    paid = pool(min_billing_ms=HOUR)
    assert plan(snapshot(state(paid, 1), now_ms=31_000)).drains == ()
    assert plan(snapshot(state(paid, 1), now_ms=HOUR)).drains


def test_a_pool_keeps_its_least_number():
    keeps = pool(min_workers=2)
    assert plan(snapshot(state(keeps, 2), now_ms=HOUR)).drains == ()
    assert plan(snapshot(state(keeps, 1), now_ms=1000)).launches[0].count == 1


def test_what_a_leaving_worker_has_not_started_is_withdrawn():
    leaving = state(SPOT, workers=(worker("spot-0", bound=3, draining=True, idle_since_ms=None),))
    assert plan(snapshot(leaving)).withdraws[0].worker == "spot-0"


def test_short_known_tasks_are_sent_ahead_and_unknown_ones_are_not():
    short = Statistic(task_class="work", pool="on-demand", n=50, log_mean=math.log(2), log_m2=0.1)
    made = plan(snapshot(state(ON_DEMAND, 1), groups=(group(ready=200, needs=Needs()),), statistics=(short,)))
    assert (made.binds[0].ahead, made.binds[0].count) == (125, 126)
    assert plan(snapshot(state(ON_DEMAND, 1), groups=(group(ready=100, needs=Needs()),))).binds[0].count == 1


def test_memory_and_cpus_bound_how_many_run_on_a_worker():
    big = pool(cpus=4, slots=4, memory_mib=8192, max_workers=1)
    for needs, fits in ((Needs(), 4), (Needs(cpus=3), 1), (Needs(memory_mib=3000), 2)):
        assert sum(b.count for b in plan(snapshot(state(big, 1), groups=(group(ready=9, needs=needs),))).binds) == fits


def test_history_narrows_an_estimate_and_an_author_beats_the_prior():
    knows = Statistic(task_class="work", pool="spot", n=100, log_mean=math.log(5_000), log_m2=1.0)
    unknown = estimate(group(needs=Needs()), "spot", {}, 1.282)
    author = estimate(group(), "spot", {}, 1.282)
    history = estimate(group(), "spot", {("work", "spot"): knows, ("work", ""): knows}, 1.282)
    elsewhere = estimate(group(), "gpu", {("work", "spot"): knows, ("work", ""): knows}, 1.282)
    assert [e.source for e in (unknown, author, history, elsewhere)] == ["prior", "author", "history", "class history"]
    assert abs(history.median_ms - 5_000) < 300
    assert history.high_ms / history.median_ms < author.high_ms / author.median_ms < unknown.high_ms / unknown.median_ms


def test_long_tasks_of_a_class_that_scatters_do_not_make_a_slow_pool_of_theirs_and_a_fast_pool_shows_at_once():
    learned = Statistics()
    for ms in (400, 1_000, 3_000, 9_000) * 5:
        learned.record_runtime("mixed", "spot", 0, ms, "")
        learned.record_runtime("even", "spot", 0, 9_000 + ms // 100, "")
    learned.record_runtime("mixed", "safe", 0, 9_000, "")
    learned.record_runtime("even", "safe", 0, 900, "")
    known = {(s.task_class, s.pool): s for s in learned.of_classes({"mixed", "even"})}

    def median(name, at):
        return estimate(group(task_class=name, needs=Needs()), at, known, 1.282).median_ms

    assert median("mixed", "safe") < 1.5 * median("mixed", "spot")
    assert median("even", "safe") < 0.25 * median("even", "spot")


def test_interruption_stretches_by_the_restart_formula():
    assert interrupted(HOUR, 0.0, None) == 1.0
    assert math.isclose(interrupted(HOUR, 1.0, None), math.e - 1, rel_tol=1e-9)
    assert interrupted(HOUR, 1.0, MINUTE) < 1.01


def test_a_decision_can_be_read_aloud():
    ask = Verdict(rule="watch", verb="prefer", reason="it is nice")
    text = read_aloud(
        decided(
            snapshot(
                state(SPOT, 1, hazard_per_hour=1.0),
                state(ON_DEMAND, 1),
                state(GPU, 1),
                groups=(group(verdicts=(ask,)),),
            )
        )
    )
    for words in (
        "work: bound to spot",
        "because spot:",
        "on-demand (on-demand): ",
        "gpu (gpu): ",
        "as its author says",
        "repetition",
        "delay",
        "rule watch (prefer): it is nice",
        "no model was asked",
    ):
        assert words in text


def test_waiting_is_worth_what_the_policy_says():
    gone = state(SPOT, refused_since_ms=0, retry_ms=MINUTE)
    pools = gone, state(ON_DEMAND, 1)
    patient = snapshot(*pools, groups=(group(),), now_ms=30_000, policy=Policy(delay_usd_micros_per_hour=0))
    assert decided(patient).pool == "spot"
    assert decided(snapshot(*pools, groups=(group(),), now_ms=30_000)).pool == "on-demand"


def test_pools_whose_workers_are_alike_share_what_is_known_of_runtimes():
    def seen(at, n, ms):
        return Statistic(task_class="work", pool=at, n=n, log_mean=math.log(ms), log_m2=0.0)

    # spot has seen the short ones to their ends, on demand the long ones; a larger worker is another thing
    large = pool("large", cpus=8)
    known = by_shape(
        [seen("spot", 3, MINUTE), seen("on-demand", 1, 16 * MINUTE), seen("large", 2, MINUTE)], [SPOT, ON_DEMAND, large]
    )
    both = known["work", "spot"]
    assert (both.n, both.log_mean) == (4, pytest.approx(math.log(2 * MINUTE)))
    assert both.log_m2 == pytest.approx(3 * math.log(2) ** 2 + math.log(8) ** 2)
    assert replace(both, pool="on-demand") == known["work", "on-demand"]
    assert known["work", "large"].n == 2
    # a pool that has seen nothing knows what its like has seen
    assert by_shape([seen("spot", 3, MINUTE)], [SPOT, ON_DEMAND])["work", "on-demand"].n == 3


def test_a_deadline_that_is_past_does_not_wait_for_spot_that_may_come_back():
    away = state(SPOT, refused_since_ms=0, retry_ms=HOUR + 1_000, returns_per_hour=1.0)
    late = plan(snapshot(away, state(ON_DEMAND), groups=(group(deadline_ms=HOUR - 1),), now_ms=HOUR))
    assert [(launch.pool, launch.count) for launch in late.launches] == [("on-demand", 1)]


def test_a_task_that_keeps_an_on_demand_worker_up_alone_pays_for_all_of_it():
    def work(*ends, ready=1):
        busy = worker("on-demand-0", slots=4, bound=len(ends), cpus_free=4 - len(ends), ends_ms=ends)
        four = replace(ON_DEMAND, slots=4, cpus=4)
        given = snapshot(replace(state(four), workers=(busy,)), groups=(group(ready=ready),))
        return ranked_alone(given.groups[0], given)[0].work_usd_micros

    hour = ON_DEMAND.price[0].usd_micros_per_hour
    # by itself all of it; four together a fourth each; beside one that goes on for longer a slot
    assert work() == pytest.approx(work(ready=4) * 4, rel=0.01)
    assert work(10 * MINUTE) == work(ready=4) < hour / 60 / 2
    assert work(ready=4) < work(MINUTE // 2) < work()


def test_workers_that_somebody_waits_for_are_launched_where_they_cost_least_and_kept_while_he_waits():
    cheap, dear = pool("cheap", usd=0.1, max_workers=2), pool("dear", usd=0.3, max_workers=2)
    made = plan(snapshot(state(dear), state(cheap), wanted_workers=3, wanted_why="a client waits"))
    assert [(x.pool, x.count, x.why) for x in made.launches] == [
        ("cheap", 2, "a client waits"),
        ("dear", 1, "a client waits"),
    ]
    idle = state(cheap, 2)
    assert plan(snapshot(idle, state(dear), wanted_workers=2, now_ms=HOUR)).launches == ()
    assert [len(plan(snapshot(idle, wanted_workers=n, now_ms=HOUR)).drains) for n in (2, 1, 0)] == [0, 1, 2]


EMULATED = replace(GPU, emulated=True)
HELPS = Needs(runtime_ms=MINUTE, gpu="helps", gpus=1)


def pressed(gpu, **changes):
    """A task whose deadline the pools without a GPU miss: they are full, and the GPU's worker is idle."""
    full = worker("on-demand-0", bound=1, cpus_free=0, idle_since_ms=None, frees_ms=10 * MINUTE)
    shot = snapshot(state(pool(max_workers=1), workers=(full,)), state(gpu, 1), groups=(group(**changes),))
    return plan(shot).decisions[0]


def test_an_emulated_gpu_is_never_bought_to_be_faster():
    late = {"needs": HELPS, "deadline_ms": 3 * MINUTE}
    assert pressed(GPU, **late).pool == "gpu"
    said = pressed(EMULATED, **late)
    assert (said.verb, said.pool) == ("wait", "on-demand")
    (option,) = [option for option in said.options if option.pool == "gpu"]
    assert (option.block, option.why_not) == ("emulated", "its GPU is emulated, so nothing is done sooner there")
    prefers = (Verdict(rule="r", verb="prefer", reason="", select=(("kind", ("gpu",)),)),)
    assert pressed(EMULATED, **late, verdicts=prefers).pool == "on-demand"


def test_an_emulated_gpu_is_used_where_a_gpu_is_asked_for_or_nothing_else_is_there():
    assert pressed(EMULATED, needs=replace(HELPS, gpu="required")).pool == "gpu"
    assert pressed(EMULATED, needs=HELPS, override="gpu").pool == "gpu"
    requires = (Verdict(rule="r", verb="require", reason="", select=(("kind", ("gpu",)),)),)
    assert pressed(EMULATED, needs=HELPS, verdicts=requires).pool == "gpu"
    assert plan(snapshot(state(EMULATED, 1), groups=(group(needs=HELPS),))).decisions[0].pool == "gpu"
