"""The cluster's state: events in, groups, workers, leases, outcomes and effects out."""

from __future__ import annotations

from dataclasses import replace

from agent.model.effects import RefuseTask, SeeTo
from agent.model.events import Restarted, SpecAdded, TaskEnded, TaskReady, WorkerBusy, WorkerJoined, WorkerLeft
from agent.model.leases import EndCause
from agent.model.outcomes import Result
from agent.scheduler import protocol
from agent.state import events
from agent.state.cluster import ClusterState
from agent.state.snapshot import pools
from agent.state.tasks import BoundTask
from tests.values import MINUTE, pool

SPOT = pool("spot", "spot", 0.09)
SAYS = {
    "prefix": "work",
    "says": {
        protocol.NEEDS: {"interruptible": True, "runtime_ms": MINUTE},
        protocol.RUN: {"flow_run": "f", "root_run": "r"},
    },
    "resources": {},
}
WORKER = {
    "address": "tcp://1",
    "name": "spot-0",
    "host": "h",
    "pool": "spot",
    "slots": 1,
    "memory_mib": 4096,
    "resources": {},
    "draining": False,
    "paused": False,
}


def apply(made, delta, now):
    """An event, after which everything must agree."""
    effects = events.apply(made, delta, now)
    assert made.faults() == []
    return effects


def lease(made, worker, now):
    """A lease on record whose worker was asked for."""
    drafted = replace(made.fleet.leases.draft(SPOT, now, "why"), worker=worker)
    made.fleet.leases.ask(drafted)
    return drafted


def view(judge=lambda facts: (), facts=frozenset()):
    made = ClusterState((SPOT, pool()), judge, facts)
    apply(made, SpecAdded(0, SAYS), 0)
    apply(made, WorkerJoined(WORKER), 0)
    return made


def ready(made, key="k", now=0, nbytes=0):
    apply(made, TaskReady(key, 0, nbytes, now), now)


def send(made, key="k", now=100):
    (group,) = [g for g in made.live_groups() if key in made.waiting.by_group[g.id]]
    task = made.waiting.drop(key)
    made.sent(BoundTask(task, 7, group.id, "spot", "tcp://1", now, 1000, 90_000, made.fleet.load(group, "spot")))


def test_tasks_that_say_the_same_are_one_group_and_inputs_of_another_size_another():
    made = view()
    for key, size in (("a", 0), ("b", 100), ("c", 2**30)):
        ready(made, key, nbytes=size)
    assert sorted(group.ready for group in made.live_groups()) == [1, 2]


def test_a_delta_that_comes_twice_changes_nothing():
    made = view()
    for _ in range(2):
        ready(made)
    assert [group.ready for group in made.live_groups()] == [1]
    send(made)
    ready(made)  # late news of a task that is bound
    assert made.live_groups() == ()
    for _ in range(2):
        apply(made, TaskEnded("k", Result.DONE, "tcp://1", 200, 700, 0), 800)
    assert [(e.placement, e.result, e.run_ms) for e in made.ended] == [(7, "done", 500)]


def test_an_outcome_is_charged_its_part_of_the_worker():
    made = view()
    ready(made)
    send(made)
    apply(made, TaskEnded("k", Result.DONE, "tcp://1", 0, 3_600_000, 0), 0)
    # start 0 means that it never began
    assert made.ended[0].usd_micros == 0
    ready(made)
    send(made)
    apply(made, TaskEnded("k", Result.DONE, "tcp://1", 1, 3_600_001, 0), 0)
    assert made.ended[1].usd_micros == 90_000


def test_a_task_lost_with_a_spot_worker_is_preempted_and_leaves_its_group():
    made = view()
    ready(made)
    before = made.live_groups()[0].id
    send(made)
    apply(made, TaskEnded("k", Result.LOST, "tcp://1", 0, 0, 0), 5_000)
    ready(made)
    after = made.live_groups()[0]
    assert (made.ended[0].result, after.preemptions, after.losses) == ("preempted", 1, 0)
    assert after.id != before


def test_history_is_learned_from_what_ran_and_not_from_what_was_found_stored():
    made = view()
    for result in (Result.DONE, Result.CACHED, Result.FAILED):
        ready(made)
        send(made)
        apply(made, TaskEnded("k", result, "tcp://1", 1, 1001, 0), 0)
    assert [s.n for s in made.statistics.of_classes({"work"})] == [1, 1]


def test_a_worker_that_leaves_takes_its_bound_tasks_along():
    made = view()
    ready(made)
    send(made)
    apply(made, WorkerLeft("tcp://1"), 500)
    assert [e.result for e in made.ended] == ["preempted"]
    assert pools(made, 500)[1].workers == ()


def test_a_launched_worker_that_leaves_is_named_with_the_reason_until_its_machine_has_ended():
    made = view()
    asked = lease(made, "spot-1", 0)
    made.fleet.leases.granted(asked.id, 10)
    apply(made, WorkerJoined({**WORKER, "address": "tcp://2", "name": "spot-1"}), 20)
    (effect,) = apply(made, WorkerLeft("tcp://2", "it was not heard for too long"), 500)
    assert isinstance(effect, SeeTo)
    assert (effect.lease.id, effect.why) == (asked.id, "it was not heard for too long")
    assert made.fleet.leases.open[asked.id].ended_ms is None
    # one that was there before is not ours to end
    assert apply(made, WorkerLeft("tcp://1", "its connection to the scheduler broke"), 600) == ()
    (ended,) = [x for x in made.fleet.leases.open.values() if x.ended_ms]
    assert (ended.end, ended.cause) == (EndCause.LEFT, "its connection to the scheduler broke")


def test_a_notice_takes_a_worker_out_of_the_plan():
    made = view()
    assert made.fleet.noticed("spot-0") == "tcp://1"
    assert pools(made, 0)[1].workers[0].draining


def test_a_launch_that_is_refused_is_put_off_each_time_longer():
    made, waits = view(), []
    for _ in range(3):
        now = made.fleet.pools["spot"].retry_ms + 1
        asked = lease(made, "spot-1", now)
        made.fleet.leases.refused(asked.id, now, "no capacity")
        waits.append(made.fleet.pools["spot"].retry_ms - now)
    assert waits == [2000, 4000, 8000]
    assert made.fleet.pools["spot"].refused_since_ms == 1
    assert not made.fleet.pools["spot"].starting


def test_a_machine_that_dies_before_it_joins_is_not_launched_again_at_once():
    made = view()
    asked = lease(made, "spot-1", 0)
    made.fleet.leases.granted(asked.id, 10)
    made.fleet.leases.end(asked.id, 500, EndCause.DIED)
    assert made.fleet.pools["spot"].retry_ms > 500


def test_a_lease_is_billed_from_its_grant_to_its_end():
    made = view()
    asked = lease(made, "spot-1", 0)
    made.fleet.leases.granted(asked.id, 1_000)
    made.fleet.leases.end(asked.id, 3_601_000, EndCause.DRAINED)
    assert made.fleet.leases.open[asked.id].usd_micros == 90_000


def test_rules_are_asked_once_for_a_group():
    asked = []
    made = view(judge=lambda facts: asked.append(facts) or ())
    for n in range(50):
        ready(made, f"k{n}")
    assert len(asked) == 1
    assert asked[0]["interruptible"] is True


def test_a_restart_ends_what_was_bound():
    made = view()
    ready(made)
    send(made)
    ready(made, "other")
    apply(made, Restarted(1), 900)
    assert ([e.result for e in made.ended], made.live_groups()) == (["cancelled by restart"], ())


def test_needs_that_cannot_be_read_are_set_aside_with_the_reason():
    made = view()
    apply(made, SpecAdded(1, {"prefix": "bad", "says": {"memry": "1 GiB"}, "resources": {}}), 0)
    (effect,) = apply(made, TaskReady("x", 1, 0, 0), 0)
    assert isinstance(effect, RefuseTask)
    assert (effect.key, "unknown need 'memry'" in effect.why) == ("x", True)
    assert made.live_groups() == ()


def test_workers_that_no_pool_selects_are_the_pool_default_and_count_as_the_dearest():
    made = view()
    apply(made, WorkerJoined({**WORKER, "address": "tcp://2", "name": "theirs", "pool": "default", "slots": 4}), 0)
    default = pools(made, 0)[-1]
    assert (default.pool.name, default.pool.slots, default.pool.priced) == ("default", 4, False)
    assert default.usd_micros_per_hour == 360_000


def test_dask_asks_for_resources_in_thousandths():
    made = view()
    apply(made, SpecAdded(1, {"prefix": "x", "says": {}, "resources": {"GPU": 0.5}}), 0)
    assert made.specs[1].needs.resources == (("GPU", 500),)


def test_a_worker_that_runs_what_nobody_placed_is_not_idle_and_its_slot_not_free():
    made = view()
    apply(made, WorkerBusy("tcp://1", 2, 1), 1_000)
    (worker,) = [w for s in pools(made, 31_000) for w in s.workers]
    # it has run for half a minute, and is taken to go on for as long again
    assert (worker.idle_since_ms, worker.bound, worker.ends_ms) == (None, 1, (61_000,))
    apply(made, WorkerBusy("tcp://1", 0, 0), 40_000)
    (worker,) = [w for s in pools(made, 41_000) for w in s.workers]
    assert (worker.idle_since_ms, worker.bound, worker.ends_ms) == (40_000, 0, ())


def test_a_worker_is_idle_only_when_both_what_was_placed_and_what_was_not_have_ended():
    made = view()
    ready(made)
    send(made)
    apply(made, WorkerBusy("tcp://1", 1, 0), 200)
    apply(made, TaskEnded("k", Result.DONE, "tcp://1", 200, 700, 0), 800)
    assert made.fleet.live["tcp://1"].idle_since_ms is None
    apply(made, WorkerJoined({**WORKER, "others": 1, "other_slots": 0}), 850)  # told of anew
    apply(made, WorkerBusy("tcp://1", 0, 0), 900)
    assert made.fleet.live["tcp://1"].idle_since_ms == 900


def test_what_dask_calls_more_urgent_is_taken_first_within_a_group_and_told_apart_by_size_only():
    made = view()
    for key, priority in (("a", 0), ("b", 9_000), ("c", 10_000), ("d", 10_000), ("e", -5_000)):
        apply(made, TaskReady(key, 0, 0, 0, (), 0, priority), 0)
    groups = {g.dask_priority: g for g in made.live_groups()}
    assert sorted((g.dask_priority, g.ready) for g in groups.values()) == [(-5_000, 1), (0, 1), (10_000, 3)]
    assert [task.key for task in made.waiting.first(groups[10_000].id, 2)] == ["c", "d"]
    assert [task.key for task in made.waiting.first(groups[10_000].id, 2, 2)] == ["b"]
