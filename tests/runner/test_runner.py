"""The task runner on a plain cluster: what prefect-dask's own does, faster."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import cloudpickle
import dask
import httpx
import pytest
from distributed import Client
from prefect import allow_failure, flow, unmapped
from prefect.futures import as_completed
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, temporary_settings
from prefect.states import State

from agent import GovernedTaskRunner, needs
from agent.errors import CheckpointError, SettingError, TaskError
from agent.runner.mode import Governance
from agent.scheduler import protocol
from harness.cluster import LOCAL
from harness.processes import free_port
from harness.wait import until
from tests.runner import bodies

pytestmark = pytest.mark.real


@pytest.fixture
def runner(dask_address, monkeypatch):
    monkeypatch.setenv("ORC_GOVERNED", "optional")
    return GovernedTaskRunner(address=dask_address)


def test_map_and_submit_take_futures_wherever_they_are(runner, prefect):
    @flow(task_runner=runner)
    def work():
        mapped = bodies.double.map(range(4))
        nested = bodies.add.submit((mapped[0], mapped[1]), more=1)
        total = bodies.add.submit([*mapped, nested], more=unmapped(1).value)
        waited = bodies.double.submit(1, wait_for=[total])
        return str(flow_run.id), total.result(), waited.result(), bodies.later.submit(1).result()

    run, *got = work()
    assert got == [12 + 3 + 1, 2, 2]
    runs = {r["name"].rsplit("-", 1)[0]: r for r in prefect.terminal(run, 8)}
    assert {r["state_type"] for r in runs.values()} == {"COMPLETED"}
    assert len(runs["add"]["task_inputs"]["numbers"]) >= 2


def test_each_task_run_is_pending_running_and_completed_on_the_server_with_its_logs(runner, prefect):
    @flow(task_runner=runner)
    def work():
        bodies.logging_task.submit().result()
        return str(flow_run.id)

    (run,) = prefect.terminal(work(), 1)
    states = httpx.get(f"{prefect.url}/task_run_states/", params={"task_run_id": run["id"]}).json()
    assert [state["type"] for state in states] == ["PENDING", "RUNNING", "COMPLETED"]
    asked = {"logs": {"task_run_id": {"any_": [run["id"]]}}}
    until(lambda: any("said on the worker" in log["message"] for log in prefect.ask("/logs/filter", asked)), 30, 0.3)


def test_a_failure_is_the_tasks_and_leaves_what_depends_on_it_not_ready(runner):
    @flow(task_runner=runner)
    def work():
        failed = bodies.odd.submit(2)
        after, kept = bodies.double.submit(failed), bodies.double.submit(allow_failure(bodies.odd.submit(3)))
        for future in (failed, after):
            future.wait()
        return failed.state.name, after.state.name, kept.result(), failed.result(raise_on_failure=False)

    failed, after, kept, error = work()
    assert (failed, after, kept) == ("Failed", "NotReady", 6)
    assert isinstance(error, ValueError)


def test_results_come_in_the_order_they_are_ready(runner):
    @flow(task_runner=runner)
    def work():
        futures = [bodies.slow.submit(seconds) for seconds in (1.5, 0.1)]
        return [future.result() for future in as_completed(futures)]

    assert work() == [0.1, 1.5]


def test_a_task_submits_tasks_of_its_own(runner):
    @flow(task_runner=runner)
    def work():
        return bodies.outer.submit().result()

    assert work() == 12


def test_what_cannot_be_pickled_is_refused_at_submit_with_the_parameters_name(runner):
    @flow(task_runner=runner)
    def work():
        bodies.double.submit(threading.Lock())

    with pytest.raises(TaskError, match="parameter 'n' \\(lock\\) cannot be pickled"):
        work()


def test_a_runner_is_pickled_and_duplicated_with_its_arguments(dask_address):
    made = GovernedTaskRunner(address=dask_address, resubmit=True, resubmit_within=5, client_kwargs={"name": "x"})
    for other in (made.duplicate(), cloudpickle.loads(cloudpickle.dumps(made))):
        assert other == made
        assert (other.resubmit, other.resubmit_within) == (True, 5)


def test_cancelling_the_flows_runner_cancels_what_its_duplicate_sent(dask_address, monkeypatch, prefect):
    monkeypatch.setenv("ORC_GOVERNED", "optional")
    original = GovernedTaskRunner(address=dask_address)
    with original.duplicate() as running:
        future = running.submit(bodies.slow, {"seconds": 60})
        behind = [running.submit(bodies.slow, {"seconds": 60}) for _ in range(3)]
        original.cancel_all()
        with pytest.raises(BaseException, match="the flow run was cancelled"):
            behind[-1].result(timeout=30)
        assert behind[-1].state.type == "CANCELLED"
        del future


def test_a_server_that_was_away_gets_every_state(runner, prefect, tmp_path):
    mark = str(tmp_path / "back")

    @flow(task_runner=runner)
    def work():
        futures = bodies.slow.map([0.2] * 10)
        Path(mark).with_name("sent").touch()
        got = futures.result()
        until(lambda: Path(mark).exists(), 120)
        return str(flow_run.id), got

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(copy_context().run, work)
        until(lambda: Path(mark).with_name("sent").exists(), 60)
        prefect.stop()
        prefect.start()
        Path(mark).touch()
        run, got = running.result(120)
    assert got == [0.2] * 10
    assert {r["state_type"] for r in prefect.terminal(run, 10)} == {"COMPLETED"}


def test_what_a_killed_server_had_only_queued_is_recorded_all_the_same(runner, prefect, tmp_path):
    done, back = tmp_path / "done", tmp_path / "back"

    @flow(task_runner=runner)
    def work():
        got = bodies.double.map(range(150)).result()
        done.touch()
        until(back.exists, 120)
        return str(flow_run.id), got

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(copy_context().run, work)
        until(done.exists, 120, 0.01)
        # it records each of the 450 state changes by itself, and is some hundreds behind
        prefect.stop()
        prefect.start()
        back.touch()
        run, got = running.result(120)
    assert got == [2 * n for n in range(150)]
    assert {r["state_type"] for r in prefect.terminal(run, 150)} == {"COMPLETED"}


def test_a_result_that_dask_has_lost_and_the_flow_has_is_handed_on_by_value(runner):
    @flow(task_runner=runner)
    def work():
        with needs(batch_size=2):
            items = bodies.double.map(range(2))
        one = bodies.double.submit(1)
        known = one.result(), items.result()
        for future in (one.wrapped_future, items[1].chunk.wrapped_future):
            future.cancel()
            until(lambda future=future: future.status == "cancelled")
        return known, bodies.add.submit([one, items[1]]).result()

    assert work() == ((2, [0, 2]), 4)


def test_stored_results_are_taken_in_before_anybody_asks_and_large_ones_are_left_where_they_are(runner, monkeypatch):
    monkeypatch.setattr("agent.runner.results.LOOK", 0.05)

    @flow(task_runner=runner, persist_result=True)
    def work():
        small, large = bodies.double.map(range(20)), bodies.blob.map([300_000] * 20)
        until(lambda: all(future._final_state is not None for future in small))
        until(lambda: all(future.wrapped_future.status == "finished" for future in large))
        time.sleep(0.3)
        return sum(future._final_state is not None for future in large), small.result() == [2 * n for n in range(20)]

    taken, right = work()
    assert (taken < 20, right) == (True, True)


@pytest.mark.parametrize("lost", [True, False])
def test_a_state_that_a_lost_worker_did_not_deliver_is_told_at_the_end_of_the_flow(runner, prefect, monkeypatch, lost):
    monkeypatch.setattr(Governance, "lost_any", lambda self: lost)
    url = prefect.url

    @flow(task_runner=runner, persist_result=True)
    def work():
        bodies.mute.submit().result()
        number = str(flow_run.id)
        asked = {"flow_runs": {"id": {"any_": [number]}}}
        until(
            lambda: [r["state_type"] for r in httpx.post(f"{url}/task_runs/filter", json=asked).json()] == ["RUNNING"]
        )
        return number

    (number,) = (r["id"] for r in prefect.terminal(work(), 1 if lost else 0))
    found = prefect.ask("/task_runs/filter", {"task_runs": {"id": {"any_": [number]}}})
    assert [r["state_type"] for r in found] == ["COMPLETED" if lost else "RUNNING"]


# ---------------------------------------------------------------------- chunks
def test_each_item_of_a_chunk_has_its_own_result_and_failure(runner, prefect):
    @flow(task_runner=runner)
    def work():
        with needs(batch_size=4):
            futures = bodies.odd.map(range(10))
        states: list[State] = [future.state for future in futures if future.wait() is None]
        after = bodies.add.submit([futures[1], futures[9]]).result()
        failed = [at for at, state in enumerate(states) if state.is_failed()]
        values = [future.result(raise_on_failure=False) for future in futures]
        return str(flow_run.id), failed, values, after

    run, failed, values, after = work()
    assert failed == [0, 2, 4, 6, 8]
    assert [value for value in values if not isinstance(value, ValueError)] == [1, 3, 5, 7, 9]
    assert (str(values[4]), after) == ("4 is even", 10)
    assert len(prefect.terminal(run, 4)) == 3 + 1


def test_each_item_of_a_chunk_is_retried_by_itself(runner, tmp_path):
    @flow(task_runner=runner)
    def work():
        with needs(batch_size=3):
            return bodies.third_time.map(unmapped(str(tmp_path)), range(3)).result()

    assert work() == [0, 1, 2]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"xxx"}


def test_auto_measures_a_class_that_nobody_knows(runner, prefect):
    @flow(task_runner=runner)
    def work():
        with needs(batch_size="auto"):
            return str(flow_run.id), bodies.double.map(range(2000)).result()

    run, got = work()
    assert got == [2 * n for n in range(2000)]
    # the probe, and four chunks for each of eight slots
    assert len(prefect.terminal(run, 33)) == 33


def test_a_batch_size_that_is_no_size_is_refused():
    with pytest.raises(SettingError, match="batch_size=0"):
        needs(batch_size=0)


# ---------------------------------------------------------------------- checkpoints
def test_a_task_that_runs_again_begins_at_its_checkpoint_which_is_removed_at_success(runner, prefect, tmp_path):
    @flow(task_runner=runner)
    def work():
        return bodies.steps.with_options(retries=1).submit(str(tmp_path), 3, "1").result()

    assert work() == 4
    assert not list((prefect.home / "storage/orc-checkpoints").glob("*"))


def test_a_checkpoint_of_another_version_is_refused(runner, tmp_path):
    from prefect.cache_policies import TASK_SOURCE

    kept = bodies.steps.with_options(cache_policy=TASK_SOURCE, persist_result=True)

    @flow(task_runner=runner)
    def work(version):
        return kept.submit(str(tmp_path), 3, version).result()

    with pytest.raises(ValueError, match="half way"):
        work("1")
    with pytest.raises(CheckpointError, match="written by version '1', this is version '2'"):
        work("2")
    assert work("1") == 4


def test_the_cause_of_a_failure_is_told_to_the_scheduler(runner, dask_address):
    @flow(task_runner=runner)
    def work():
        future = bodies.starved.submit()
        future.wait()
        with Client(dask_address) as client:
            key = future.wrapped_future.key
            return client.run_on_scheduler(lambda dask_scheduler: dict(dask_scheduler.tasks[key].metadata))

    said = work()[protocol.ANNOTATION]
    assert (said[protocol.RESULT], said[protocol.CAUSE]) == ("failed", "out of memory")


SECRETS = {PREFECT_API_AUTH_STRING: "orc:hidden-1", PREFECT_API_KEY: "hidden-2"}


def places_in_scheduler(address: str) -> list[tuple[str, str]]:
    """Where the scheduler holds a credential; and the task, by its name."""

    def held(words: list[str], dask_scheduler) -> list[tuple[str, str]]:
        import pickle

        places = {
            "metadata": dask_scheduler.task_metadata,
            "events": {topic: list(each.events) for topic, each in dask_scheduler._broker._topics.items()},
            "tasks": [(ts.run_spec, ts.annotations, ts.metadata) for ts in dask_scheduler.tasks.values()],
        }
        packed = {name: pickle.dumps(place) for name, place in places.items()}
        return [(word, name) for word in words for name, data in packed.items() if word.encode() in data]

    with Client(address) as client:
        return client.run_on_scheduler(held, ["hidden-", "credentials_here"])


def test_workers_without_credentials_are_told_the_flows_and_the_scheduler_keeps_none(runner, dask_address, prefect):
    seen: list[tuple[str, str]] = []

    @flow(task_runner=runner)
    def work():
        found = bodies.credentials_here.submit(True).result()
        seen.extend(places_in_scheduler(dask_address))
        return found

    with temporary_settings(SECRETS):
        assert work() == ("orc:hidden-1", "hidden-2") * 2
    assert [word for word, _ in seen if word == "hidden-"] == []
    assert ("credentials_here", "metadata") in seen


class ShortLived:
    """A scheduler at one address that is killed and started anew."""

    def __init__(self, processes, worker_env):
        self.processes, self.worker_env, self.port = processes, worker_env, free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self._start()

    def _start(self):
        return self.processes.start(
            "distributed.cli.dask_scheduler", "--port", str(self.port), *LOCAL, name="short-lived"
        )

    def replace(self) -> None:
        """By a new one, with a worker."""
        self.scheduler.kill()
        self.scheduler.wait()
        self.scheduler = self._start()
        worker = ("distributed.cli.dask_worker", self.address, "--nthreads", "1", "--no-nanny", *LOCAL)
        self.processes.start(*worker, name="short-lived-worker", env=self.worker_env)

    def annotations(self, key: str) -> dict[str, int] | None:
        """What it was told of a task."""

        def found(key, dask_scheduler):
            task = dask_scheduler.tasks.get(key)
            return task and {name: value for name, value in task.annotations.items() if name != "orc"}

        with Client(self.address) as client:
            return client.run_on_scheduler(found, key)


#: not in a flow's own names, which travel
short_lived: dict[str, ShortLived] = {}


def kill_and_ask(future) -> tuple[int, object, object]:
    at, key = short_lived["one"], future.wrapped_future.key
    before = until(lambda: at.annotations(key))
    at.replace()
    with dask.annotate(priority=-1, allow_other_workers=True):  # of what is submitted here, not of what is awaited
        return future.result(), before, at.annotations(key)


def test_what_is_sent_again_to_a_new_scheduler_keeps_what_dask_was_told_of_it(prefect, processes, monkeypatch):
    monkeypatch.setenv("ORC_GOVERNED", "optional")
    at = short_lived["one"] = ShortLived(processes, {"PREFECT_API_URL": prefect.url})

    @flow(task_runner=GovernedTaskRunner(address=at.address, resubmit=True))
    def work():
        with dask.annotate(priority=7, retries=3):
            future = bodies.double.submit(2)
        return kill_and_ask(future)

    result, before, after = work()
    assert (result, before) == (4, {"priority": 7, "retries": 3})
    assert after == before
