"""In the place of prefect-dask's DaskTaskRunner: every argument, and what flows rely on. See also test_runner."""

from __future__ import annotations

import asyncio
import logging
import threading
import time

import dask
import pytest
from distributed import Client, LocalCluster
from prefect import flow, tags, task, unmapped
from prefect.futures import PrefectFutureList, wait
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect_dask.task_runners import DaskTaskRunner, PrefectDaskFuture

from agent import GovernedTaskRunner, needs
from tests.runner import bodies

pytestmark = pytest.mark.real

SMALL = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": ":0"}


@pytest.fixture
def runner(dask_address, monkeypatch):
    monkeypatch.setenv("ORC_GOVERNED", "optional")
    return GovernedTaskRunner(address=dask_address)


def summed(task_runner):
    """The result of a small flow."""

    @flow(task_runner=task_runner)
    def work():
        return bodies.add.submit(bodies.double.map([1, 2, 3])).result()

    return work()


# ---------------------------------------------------------------------- arguments
class Named(LocalCluster):
    """A cluster class of a user's own; tells how it was scaled."""

    asked: tuple[dict[str, int], ...] = ()

    def adapt(self, **limits):
        type(self).asked += (limits,)


@pytest.mark.parametrize("kind", ["distributed.LocalCluster", LocalCluster, lambda **more: LocalCluster(**more), None])
def test_a_cluster_of_the_runs_own_is_made_and_ended(prefect, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = GovernedTaskRunner(cluster_class=kind, cluster_kwargs=SMALL)
    assert summed(runner) == 12
    assert summed(runner) == 12
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("orc-ledger", "orc-govern"))]


def test_a_flow_that_may_be_interrupted_and_keeps_no_results_is_told_so_once(prefect, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)

    @flow(task_runner=GovernedTaskRunner(cluster_kwargs=SMALL))
    def forgetful(persist):
        with needs(interruptible=True):
            return bodies.double.with_options(persist_result=persist).map([1, 2]).result()

    with caplog.at_level(logging.WARNING):
        assert [forgetful(True), forgetful(None), forgetful(None)] == [[2, 4]] * 3
    said = [r.getMessage() for r in caplog.records if "persist_result=True" in r.getMessage()]
    assert len(said) == 1
    assert "flow 'forgetful'" in said[0]


def test_a_cluster_that_runs_already_is_used_and_left_running(prefect, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORC_GOVERNED", "optional")
    with LocalCluster(**SMALL) as cluster:
        assert summed(GovernedTaskRunner(cluster=cluster)) == 12
        with Client(cluster) as client:
            assert client.submit(sum, [1, 2]).result() == 3


def test_adapt_kwargs_scale_a_cluster_that_is_not_governed(prefect, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Named.asked = ()
    assert summed(GovernedTaskRunner(cluster_class=Named, cluster_kwargs=SMALL, adapt_kwargs={"maximum": 2})) == 12
    assert Named.asked == ({"maximum": 2},)


def test_client_kwargs_reach_the_client(prefect, dask_address, monkeypatch):
    monkeypatch.setenv("ORC_GOVERNED", "optional")
    with GovernedTaskRunner(address=dask_address, client_kwargs={"name": "by-this-name"}) as running:
        assert "by-this-name" in running.client.id
        assert not running.client.asynchronous


def test_a_performance_report_is_written(runner, prefect, dask_address, tmp_path):
    pytest.importorskip("bokeh")
    report = tmp_path / "report.html"
    assert summed(GovernedTaskRunner(address=dask_address, performance_report_path=str(report))) == 12
    assert "Dask Performance Report" in report.read_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "tcp://127.0.0.1:1", "cluster_kwargs": SMALL},
        {"client_kwargs": {"asynchronous": True}},
        {"cluster_kwargs": {"asynchronous": True}},
    ],
)
def test_arguments_that_exclude_each_other_are_refused_as_before(wrong):
    with pytest.raises(ValueError, match="annot"):
        GovernedTaskRunner(**wrong)


def test_it_is_a_dask_task_runner_and_its_futures_are_dask_futures_named_after_the_task(runner):
    @flow(task_runner=runner)
    def work():
        future = bodies.double.submit(1)
        return type(future), future.wrapped_future.key, future.result()

    kind, key, got = work()
    assert isinstance(runner, DaskTaskRunner)
    assert issubclass(kind, PrefectDaskFuture)
    assert (key.startswith("double-"), got) == (True, 2)


# ---------------------------------------------------------------------- flows and tasks
def test_an_async_flow_runs_async_and_sync_tasks(runner):
    @flow(task_runner=runner)
    async def work():
        one = bodies.later.submit(1)
        return await asyncio.to_thread(bodies.double.submit(one).result), bodies.later.map([1, 2]).result()

    assert asyncio.run(work()) == (4, [2, 3])


def test_map_takes_unmapped_static_and_iterable_parameters_and_futures(runner):
    @flow(task_runner=runner)
    def work():
        numbers = bodies.double.map(range(3))
        first = bodies.mapped.map(numbers, unmapped([1, 2]), 10)
        second = bodies.mapped.map([1, 2, 3], static=unmapped([]), more=(1, 2, 3))
        assert isinstance(first, PrefectFutureList)
        return first.result(), second.result(), bodies.double.map([]).result()

    assert work() == ([3, 23, 43], [1, 4, 9], [])


def test_what_is_waited_for_ends_first(runner, tmp_path):
    @flow(task_runner=runner)
    def work():
        first = bodies.stamp.submit(str(tmp_path / "first"))
        more = bodies.stamp.map([str(tmp_path / "second"), str(tmp_path / "third")], wait_for=[first])
        bodies.stamp.submit(str(tmp_path / "last"), wait_for=more).result()

    work()
    order = (tmp_path / "order").read_text().split()
    assert (order[0], sorted(order[1:3]), order[3]) == ("first", ["second", "third"], "last")


def test_futures_are_found_in_nested_collections(runner):
    @task
    def dig(said):
        return said["a"][0] + said["b"]["c"][1] + sum(said["d"])

    @flow(task_runner=runner)
    def work():
        one, two = bodies.double.submit(1), bodies.double.submit(2)
        return dig.submit({"a": [one], "b": {"c": (0, two)}, "d": {3}}).result()

    assert work() == 2 + 4 + 3


def test_flows_below_a_flow_have_runners_of_their_own(runner):
    @flow(task_runner=runner)
    def below(n):
        return bodies.double.submit(n).result()

    @flow(task_runner=runner)
    def above():
        before = bodies.double.submit(1)
        return below(before.result()) + below(10), bodies.double.submit(before).result()

    assert above() == (4 + 20, 4)


def test_a_task_uses_dask_itself(runner):
    @flow(task_runner=runner)
    def work():
        return bodies.of_dask.submit(4).result(), bodies.of_dask_later.submit(4).result()

    assert work() == (12, 12)


def test_annotations_of_dask_reach_the_scheduler_and_hold(runner, dask_address):
    def said(dask_scheduler, keys):
        found = [dask_scheduler.tasks[key].annotations for key in keys]
        return [{name: value for name, value in each.items() if name != "orc"} for each in found]

    @flow(task_runner=runner)
    def work():
        with dask.annotate(priority=7, retries=2):
            urgent = bodies.double.submit(1)
        with dask.annotate(workers=["worker-1"]):
            there = [bodies.where.submit() for _ in range(3)]
        with dask.annotate(resources={"nobody": 1}):
            held = bodies.double.submit(1)
        wait([urgent, *there])
        names = [each.result() for each in there]
        with Client(dask_address) as client:
            got = client.run_on_scheduler(said, keys=[each.wrapped_future.key for each in (urgent, held)])
        waits = not wait([held], timeout=0.5).done
        held.wrapped_future.cancel()
        return names, got, waits

    names, got, waits = work()
    assert names == ["worker-1"] * 3
    assert got == [{"priority": 7, "retries": 2}, {"resources": {"nobody": 1}}]
    assert waits


def test_waiting_has_a_limit_and_callbacks_are_called(runner):
    @flow(task_runner=runner)
    def work():
        called = []
        slow, quick = bodies.slow.submit(3.0), bodies.double.submit(1)
        quick.add_done_callback(lambda future: called.append(future.result()))
        done, open_ = wait([slow, quick], timeout=2)
        with pytest.raises(TimeoutError):
            slow.result(timeout=0.1)
        pending = slow.state.type
        slow.wait(0.1)
        slow.wait()
        return len(done), len(open_), called, pending.value in ("PENDING", "RUNNING"), slow.state.type.value

    assert work() == (1, 1, [2], True, "COMPLETED")


def test_states_are_asked_for_and_returned(runner):
    @flow(task_runner=runner)
    def work():
        states = [bodies.odd.submit(n, return_state=True) for n in (1, 2)]
        states += bodies.odd.map([3, 4], return_state=True)
        return [state.name for state in states], Completed(message="all was seen")

    names, state = work(return_state=True).result(raise_on_failure=False)
    assert (names, state.message) == (["Completed", "Failed"] * 2, "all was seen")


def test_a_task_that_takes_too_long_fails_as_timed_out(runner):
    @flow(task_runner=runner)
    def work():
        future = bodies.endless.submit()
        future.wait()
        after = bodies.double.submit(future)
        after.wait()
        return future.state.name, after.state.name

    assert work() == ("TimedOut", "NotReady")


@pytest.mark.parametrize("how", ["exit", "interrupt"])
def test_a_body_that_ends_its_process_crashes_its_task_run_and_no_worker(runner, prefect, dask_address, how):
    @flow(task_runner=runner)
    def work():
        futures = [bodies.leaves.submit(how), bodies.leaves_later.submit(how)]
        for future in futures:
            future.wait(60)
        return str(flow_run.id), [future.state.type.value for future in futures]

    with Client(dask_address) as client:
        before = set(client.scheduler_info(n_workers=-1)["workers"])
        begin = time.monotonic()
        run, states = work()
        assert states == ["CRASHED", "CRASHED"]
        assert time.monotonic() - begin < 30
        assert set(client.scheduler_info(n_workers=-1)["workers"]) == before
    assert {r["state_type"] for r in prefect.terminal(run, 2)} == {"CRASHED"}


def test_a_generator_hands_its_items_on(runner):
    @flow(task_runner=runner)
    def work():
        return bodies.many.submit().result()

    assert list(work()) == [0, 1, 2]


def test_tags_and_names_are_the_task_runs_own(runner, prefect):
    @flow(task_runner=runner)
    def work():
        with tags("of-this-test"):
            bodies.double.with_options(task_run_name="twice-{n}", tags=["own"]).submit(4).result()
        return str(flow_run.id)

    (run,) = prefect.terminal(work(), 1)
    assert (run["name"], set(run["tags"])) == ("twice-4", {"own", "of-this-test"})


def test_a_runner_that_was_not_started_says_so(runner):
    with pytest.raises(RuntimeError, match="must be started"):
        runner.submit(bodies.double, {"n": 1})
