"""The extension on a real scheduler with real worker processes; the test sits in the governor's place."""

from __future__ import annotations

import contextlib
import gc
import os
import time

import dask
import pytest
from distributed import get_worker, worker_client

from agent.errors import InstructionError, NeedUnmetError
from agent.model.events import (
    GraphSubmitted,
    TaskCancelled,
    TaskCheckpointed,
    TaskEnded,
    TaskPassedThrough,
    TaskPlacedByDask,
    TaskReady,
    TaskSeceded,
    WorkerBusy,
    WorkerJoined,
    WorkerPaused,
)
from agent.scheduler import protocol
from harness.wait import until
from tests.integration.conftest import Governor

pytestmark = pytest.mark.real


def inc(x):
    return x + 1


def where(*_):
    return get_worker().name


def slow(seconds, path=None):
    if path:
        with open(path, "a") as file:
            file.write(f"{os.getpid()}\n")
    time.sleep(seconds)
    return get_worker().name


def test_a_task_is_held_until_it_is_bound_and_runs_where_it_was_bound(cluster, governor):
    futures = [cluster.client.submit(where, n, pure=False) for n in range(2)]
    keys = governor.ready(2)
    time.sleep(0.3)
    assert not any(f.done() for f in futures)
    governor.bind("safe", keys[0])
    governor.bind("spot", keys[1])
    assert {f.key: f.result(timeout=10) for f in futures} == {keys[0]: "safe-0", keys[1]: "spot-0"}
    until(lambda: governor.ended(keys[0]) == ["done"])


def test_a_dependent_is_reported_only_when_its_inputs_are_ready(cluster, governor):
    first = cluster.client.submit(inc, 1, pure=False)
    second = cluster.client.submit(inc, first, pure=False)
    assert governor.ready(1) == [first.key]
    governor.bind("safe", first.key)
    assert governor.ready(2) == [first.key, second.key]
    governor.bind("spot", second.key)
    assert second.result(timeout=10) == 3


def test_no_worker_gets_more_than_it_has_room_for(cluster, governor):
    futures = [cluster.client.submit(slow, 0.5, pure=False) for _ in range(3)]
    bound = governor.bind("spot", *governor.ready(3))
    assert [b is not None for b in bound] == [True, False, False]
    # what did not fit is still held, and can be bound ahead
    left = [f.key for f in futures if f.key not in governor.ready(3)[:1]]
    assert all(governor.bind("spot", *left, ahead=4))
    assert [f.result(timeout=10) for f in futures] == ["spot-0"] * 3


def test_a_lost_worker_gives_its_task_back_with_key_and_future(cluster, governor, tmp_path):
    cluster.add("spot-1")
    try:
        governor = Governor(cluster, {"spot": 1, "safe": 1})
        cluster.kill("spot-0")
        future = cluster.client.submit(slow, 1.0, str(tmp_path / "ran"), pure=False)
        after = cluster.client.submit(where, future, pure=False)
        governor.ready(1)
        governor.bind("spot", future.key)
        until(lambda: (tmp_path / "ran").exists())
        cluster.kill("spot-1")
        until(lambda: governor.ended(future.key) == ["lost"])
        until(lambda: governor.keys(TaskReady).count(future.key) == 2)
        assert not future.done()
        governor.bind("safe", future.key)
        assert future.result(timeout=10) == "safe-0"
        until(lambda: after.key in governor.keys(TaskReady))
        governor.bind("safe", after.key)
        assert after.result(timeout=10) == "safe-0"
        assert len((tmp_path / "ran").read_text().split()) == 2
    finally:
        for name in ("spot-0", "spot-1"):
            with contextlib.suppress(KeyError, AssertionError):
                cluster.kill(name)
        cluster.add("spot-0")


def test_a_result_lost_with_its_worker_is_held_again(cluster, governor):
    first = cluster.client.submit(inc, 1, pure=False)
    governor.ready(1)
    governor.bind("spot", first.key)
    assert first.result(timeout=10) == 2
    cluster.kill("spot-0")
    try:
        until(lambda: governor.keys(TaskReady).count(first.key) == 2)
        governor.bind("safe", first.key)
        assert first.result(timeout=10) == 2
    finally:
        cluster.add("spot-0")


def test_losses_of_workers_never_become_the_tasks_own_failure(cluster, governor, tmp_path):
    future = cluster.client.submit(slow, 1.0, str(tmp_path / "ran"), pure=False)
    try:
        for n in range(5):  # Dask alone gives up after three
            until(lambda n=n: governor.keys(TaskReady).count(future.key) == n + 1)
            governor.bind("spot", future.key)
            until(lambda n=n: (tmp_path / "ran").exists() and len((tmp_path / "ran").read_text().split()) == n + 1)
            cluster.kill("spot-0")
            cluster.add("spot-0")
        until(lambda: governor.keys(TaskReady).count(future.key) == 6)
        governor.bind("safe", future.key)
        assert future.result(timeout=10) == "safe-0"
    finally:
        if "spot-0" not in cluster.names():
            cluster.add("spot-0")


def test_what_was_not_started_can_be_withdrawn_and_what_runs_cannot(cluster, governor, tmp_path):
    running = cluster.client.submit(slow, 1.5, str(tmp_path / "ran"), pure=False)
    waiting = cluster.client.submit(where, pure=False)
    governor.ready(2)
    governor.bind("spot", running.key)
    until(lambda: (tmp_path / "ran").exists())
    governor.bind("spot", waiting.key, ahead=4)
    cluster.ask("orc_instruct", epoch=governor.epoch, withdraw=[cluster.names()["spot-0"]])
    until(lambda: governor.ended(waiting.key) == ["withdrawn"])
    until(lambda: governor.keys(TaskReady).count(waiting.key) == 2)
    governor.bind("safe", waiting.key)
    assert waiting.result(timeout=10) == "safe-0"
    assert running.result(timeout=10) == "spot-0"
    assert len((tmp_path / "ran").read_text().split()) == 1


def test_a_draining_worker_gets_nothing_until_it_is_taken_back(cluster, governor):
    address = cluster.names()["spot-0"]
    cluster.ask("orc_instruct", epoch=governor.epoch, drain=[address])
    future = cluster.client.submit(where, pure=False)
    governor.ready(1)
    assert governor.bind("spot", future.key) == [None]
    cluster.ask("orc_instruct", epoch=governor.epoch, undrain=[address])
    assert governor.bind("spot", future.key) == [address]
    future.result(timeout=10)


def test_a_refused_task_fails_with_the_reason_and_its_dependents_with_it(cluster, governor):
    first = cluster.client.submit(inc, 1, pure=False)
    second = cluster.client.submit(inc, first, pure=False)
    governor.ready(1)
    cluster.ask("orc_instruct", epoch=governor.epoch, refuse=[(first.key, "NeedUnmetError", "no pool has 9 GPUs")])
    with pytest.raises(NeedUnmetError, match="9 GPUs"):
        first.result(timeout=10)
    with pytest.raises(NeedUnmetError):
        second.result(timeout=10)
    until(lambda: first.key in governor.keys(TaskCancelled))


def says_of_itself(said):
    worker = get_worker()
    worker.state.tasks[worker.get_current_task()].metadata["orc"] = said
    return 1


@pytest.mark.parametrize(
    "said", [{"result": "eaten"}, {"result": [1]}, "x", {"lineage": 7}, {"lineage": [("reads",)]}], ids=str
)
def test_what_a_body_says_of_its_end_in_no_form_is_not_told(cluster, governor, said):
    future = cluster.client.submit(says_of_itself, said, pure=False)
    governor.ready(1)
    governor.bind("safe", future.key)
    assert future.result(timeout=10) == 1
    until(lambda: governor.ended(future.key) == ["done"])
    assert [event.lineage for event in governor.of(TaskEnded)] == [()]


def says_that_it_can_leave(at_ms):
    worker = get_worker()
    worker.log_event(protocol.CHECKPOINT_TOPIC, {"key": worker.get_current_task(), "at_ms": at_ms, "bytes": 5})
    return 1


def test_a_checkpoint_is_told_with_its_time_or_not_at_all(cluster, governor):
    for at_ms, told in (("soon", []), (1234, [(1234, 5)])):
        future = cluster.client.submit(says_that_it_can_leave, at_ms, pure=False)
        until(lambda future=future: future.key in governor.ready(1))
        governor.bind("safe", future.key)
        assert future.result(timeout=10) == 1
        until(lambda future=future: governor.ended(future.key) == ["done"])
        assert [(event.at_ms, event.nbytes) for event in governor.of(TaskCheckpointed)] == told


def test_an_older_governor_is_fenced(cluster, governor):
    future = cluster.client.submit(where, pure=False)
    governor.ready(1)
    newer = Governor(cluster, {"spot": 1, "safe": 1})
    for handler, arguments in (("orc_follow", {"ack": 0}), ("orc_instruct", {}), ("orc_snapshot", {})):
        assert cluster.ask(handler, epoch=governor.epoch, **arguments) == {"fenced": newer.epoch}
    assert not future.done()
    assert newer.bind("safe", future.key) != [None]
    future.result(timeout=10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"leave": [("key", 7)]},
        {"binds": [{"pool": "spot", "keys": []}]},
        {"refuse": [("key", "NoSuchError", "why")]},
        {"pools": [{"name": "spot"}]},
        {"unheard_of": 1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_an_instruction_that_is_malformed_has_no_effect_at_all(cluster, governor, wrong):
    newer, address = next(governor.epochs), cluster.names()["spot-0"]
    with pytest.raises(InstructionError):
        cluster.ask("orc_instruct", **{"epoch": newer, "drain": [address], "mode": "off", "figures": {}, **wrong})
    state = cluster.ask("orc_snapshot", epoch=governor.epoch)  # who said it is not the newest either
    assert state["mode"] == "govern"
    assert [worker["draining"] for worker in state["workers"] if worker["address"] == address] == [False]


def test_a_new_governor_sees_what_is_held_bound_and_not_yet_on_record(cluster, governor):
    done, running, held = (cluster.client.submit(slow, seconds, pure=False) for seconds in (0, 1.5, 0))
    governor.ready(3)
    governor.bind("safe", done.key)
    done.result(timeout=10)
    governor.bind("safe", running.key)
    newer = Governor(cluster, {"spot": 1, "safe": 1})
    state = cluster.ask("orc_snapshot", epoch=newer.epoch)
    assert [key for key, *_ in state["ready"]] == [held.key]
    assert [key for key, *_ in state["bound"]] == [running.key]
    assert done.key in [delta[1] for delta in state["ended"]]
    newer.bind("spot", held.key)
    held.result(timeout=10)
    running.result(timeout=10)


def test_what_its_author_pinned_is_let_through(cluster, governor):
    future = cluster.client.submit(where, pure=False, workers=[cluster.names()["spot-0"]])
    assert future.result(timeout=10) == "spot-0"
    assert future.key in governor.keys(TaskPassedThrough)


def test_a_task_that_nobody_placed_keeps_its_worker_busy_until_it_ends(cluster, governor):
    address = cluster.names()["spot-0"]
    pinned = cluster.client.submit(slow, 2.0, pure=False, workers=[address])
    until(lambda: governor.of(WorkerBusy)[-1:] == [WorkerBusy(address, 1, 1)])
    held = cluster.client.submit(where, pure=False)
    governor.ready(1)
    assert governor.bind("spot", held.key) == [None]  # its only slot is taken
    assert list(cluster.ask("orc_instruct", epoch=governor.epoch, drain=[address])["busy"]) == [address]
    cluster.ask("orc_instruct", epoch=governor.epoch, undrain=[address])
    assert pinned.result(timeout=10) == "spot-0"
    until(lambda: governor.of(WorkerBusy)[-1] == WorkerBusy(address, 0, 0))
    assert governor.bind("spot", held.key) == [address]
    assert held.result(timeout=10) == "spot-0"


def test_an_actor_is_never_held(cluster, governor):
    class Counter:
        n = 0

        def up(self):
            self.n += 1
            return self.n

    with cluster.client.as_current():
        actor = cluster.client.submit(Counter, actor=True).result(timeout=10)
        assert actor.up().result(timeout=10) == 1
    # and its worker is not idle while it lives
    until(lambda: [(d.others, d.slots) for d in governor.of(WorkerBusy)][-1:] == [(1, 0)])
    del actor
    gc.collect()  # it is part of a circle
    until(lambda: [(d.others, d.slots) for d in governor.of(WorkerBusy)][-1:] == [(0, 0)])


def test_resources_its_author_asked_for_are_honoured_beside_the_pool(cluster, governor):
    with dask.annotate(resources={"GPU": 1}):
        future = cluster.client.submit(where, pure=False)
    governor.ready(1)
    assert governor.bind("safe", future.key) == [None]  # no worker there offers it
    cluster.add("spot-9", resources="GPU=1")
    try:
        assert governor.bind("spot", future.key) == [cluster.names()["spot-9"]]
        assert future.result(timeout=10) == "spot-9"
    finally:
        cluster.kill("spot-9")


def test_a_cancelled_held_task_is_gone(cluster, governor):
    future = cluster.client.submit(where, pure=False)
    governor.ready(1)
    future.cancel()
    until(lambda: future.key in governor.keys(TaskCancelled))
    assert governor.bind("safe", future.key) == [None]


def test_mode_off_lets_everything_run_at_once_and_shadow_only_looks(cluster, governor):
    cluster.ask("orc_instruct", epoch=governor.epoch, mode="off")
    assert cluster.client.submit(inc, 1, pure=False).result(timeout=10) == 2
    cluster.ask("orc_instruct", epoch=governor.epoch, mode="shadow")
    future = cluster.client.submit(inc, 1, pure=False)
    assert future.result(timeout=10) == 2
    until(lambda: future.key in governor.keys(TaskPlacedByDask) and governor.ended(future.key) == ["done"])
    cluster.ask("orc_instruct", epoch=governor.epoch, mode="govern")


def test_a_flow_may_switch_itself_off(cluster, governor):
    with dask.annotate(orc={"mode": "off"}):
        assert cluster.client.submit(inc, 1, pure=False).result(timeout=10) == 2


def parent(n):
    with worker_client() as client:
        with dask.annotate(orc={"inner": get_worker().get_current_task()}):
            return get_worker().name, client.gather(client.map(where, range(n), pure=False))


def shuffle_inside(method):
    import dask.dataframe as dd
    import pandas as pd

    with worker_client() as client, dask.config.set({"dataframe.shuffle.method": method}):
        left = dd.from_pandas(pd.DataFrame({"k": range(1000), "v": 1}), npartitions=6)
        right = dd.from_pandas(pd.DataFrame({"k": range(1000), "w": 2}), npartitions=6)
        with dask.annotate(orc={"inner": get_worker().get_current_task()}):
            return int(client.compute(left.merge(right, on="k").v.sum()).result(timeout=60))


def test_inner_work_runs_in_its_parents_pool_without_a_decision(cluster, governor):
    future = cluster.client.submit(parent, 10, pure=False)
    governor.ready(1)
    governor.bind("spot", future.key)
    assert future.result(timeout=20) == ("spot-0", ["spot-0"] * 10)
    assert governor.keys(TaskReady) == [future.key]
    assert future.key in governor.keys(TaskSeceded)


@pytest.mark.parametrize("method", ["tasks", "p2p"])
def test_an_inner_shuffle_stays_in_its_pool_and_ends(cluster, governor, method):
    future = cluster.client.submit(shuffle_inside, method, pure=False)
    governor.ready(1)
    governor.bind("spot", future.key)
    assert future.result(timeout=90) == 1000


def distinct_inside(seed):
    import dask.dataframe as dd
    import pandas as pd

    with worker_client() as client:
        rows = dd.from_pandas(pd.DataFrame({"k": range(seed, seed + 1000)}), npartitions=3)
        with dask.annotate(orc={"inner": get_worker().get_current_task()}):
            return len(client.compute(rows.drop_duplicates()).result(timeout=60))


def test_shuffles_of_two_parents_in_one_pool_find_their_partitions(cluster):
    cluster.add("pair-0")
    cluster.add("pair-1")
    try:
        governor = Governor(cluster, {"spot": 1, "safe": 1, "pair": 1})
        for turn in range(5):
            futures = cluster.client.map(distinct_inside, [turn, turn + 5000], pure=False)
            governor.ready(2)
            for future in futures:
                governor.bind("pair", future.key)
            assert [future.result(timeout=30) for future in futures] == [1000, 1000]
            governor.deltas.clear()
    finally:
        cluster.kill("pair-0")
        cluster.kill("pair-1")


def pause_at(cluster, governor, name, fraction):
    """Let a worker pause when its memory is so full; Dask's own monitor does it."""
    address = cluster.names()[name]

    def change(dask_worker):
        dask_worker.memory_manager.memory_pause_fraction = fraction

    cluster.client.run(change, workers=[address])
    until(lambda: governor.of(WorkerPaused)[-1:] == [WorkerPaused(address, fraction < 0.5)])
    return address


def test_a_worker_is_told_of_when_it_takes_work_and_not_before(cluster, governor):
    cluster.add("spot-9")
    try:
        until(lambda: any(d.worker["name"] == "spot-9" for d in governor.of(WorkerJoined)))
        (joined,) = [d.worker for d in governor.deltas if isinstance(d, WorkerJoined) and d.worker["name"] == "spot-9"]
        assert not joined["paused"]
        assert [d for d in governor.of(WorkerPaused) if d.address == joined["address"]] == []
    finally:
        cluster.kill("spot-9")


def test_a_paused_worker_gets_nothing_until_it_goes_on(cluster, governor):
    address = pause_at(cluster, governor, "spot-0", 1e-6)
    future = cluster.client.submit(where, 1, pure=False)
    governor.ready(1)
    assert governor.bind("spot", future.key) == [None]
    pause_at(cluster, governor, "spot-0", 0.8)
    assert governor.bind("spot", future.key) == [address]
    assert future.result(timeout=10) == "spot-0"


def test_inner_work_waits_for_a_paused_pool_and_is_not_piled_up_on_it(cluster, governor):
    future = cluster.client.submit(parent, 200, pure=False)
    governor.ready(1)
    governor.bind("spot", future.key)
    until(lambda: future.key in governor.keys(TaskSeceded))
    for _ in range(3):
        pause_at(cluster, governor, "spot-0", 1e-6)
        counts = cluster.client.run_on_scheduler(
            lambda dask_scheduler: [c.nested for c in dask_scheduler.plugins["orc"].host.workers.values()]
        )
        assert max(counts) <= 2  # worker-saturation 1.1 on one thread
        pause_at(cluster, governor, "spot-0", 0.8)
    assert future.result(timeout=20)[1] == ["spot-0"] * 200


def test_orc_never_holds_the_schedulers_loop_for_long(cluster, governor):
    state = cluster.ask("orc_state")
    assert max(state["longest_ms"].values()) < 20


def test_the_graph_of_a_run_with_a_deadline_is_told_inputs_first(cluster, governor):
    run = {"flow_run": "f", "root_run": "r", "deadline_ms": round(time.time() * 1000) + 600_000}
    with dask.annotate(orc={"run": run, "needs": {}}):
        first = dask.delayed(inc)(1, dask_key_name="first")
        second = dask.delayed(inc)(first, dask_key_name="second")
        both = dask.delayed(max)(first, second, dask_key_name="both")
    with dask.annotate(orc={"run": {**run, "deadline_ms": None}, "needs": {}}):
        untimed = cluster.client.submit(inc, 5, pure=False)
    future = cluster.client.compute(both, optimize_graph=False)
    until(lambda: governor.keys(GraphSubmitted), 10)
    assert [(key, sorted(above)) for key, _, above in governor.keys(GraphSubmitted)[0]] == [
        ("first", []),
        ("second", ["first"]),
        ("both", ["first", "second"]),
    ]
    governor.bind("safe", "first")
    fresh = cluster.ask("orc_snapshot", epoch=governor.epoch)
    assert {key for key, *_ in fresh["submitted"]} <= {"first", "second", "both"}
    for name in ("second", "both"):
        until(lambda name=name: name in governor.ready(1), 10)
        governor.bind("safe", name)
    assert future.result(timeout=10) == 3
    assert untimed.key in governor.ready(1)
