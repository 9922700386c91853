"""What a task has with prefect-dask's own runner, and must have in company: its own code, result and record."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
from functools import partial

import pytest
from prefect import flow, task
from prefect.runtime import flow_run

from agent import GovernedTaskRunner, needs
from agent.errors import TaskError
from harness.processes import ROOT
from tests.runner import bodies

pytestmark = pytest.mark.real

SEEN: list[int] = []
RATE = 10
RANDOM = random.Random(1)


@pytest.fixture
def runner(dask_address, monkeypatch):
    monkeypatch.setenv("ORC_GOVERNED", "optional")
    return GovernedTaskRunner(address=dask_address)


# ---------------------------------------------------------------------- each result stands for itself
class Stubborn:
    """Comes back on a worker and nowhere else."""

    def __reduce__(self):
        return bodies.only_on_a_worker, ()


class TwoWordsError(Exception):
    """Cannot be rebuilt: pickle gives it one word."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


@task
def mixed(n):
    if n == 3:
        return Stubborn()
    if n == 5:
        raise TwoWordsError("five is", "right out")
    return n


@pytest.mark.parametrize("persisted", [False, True])
def test_a_result_that_cannot_be_read_fails_its_own_task_and_no_other(runner, persisted):
    @flow(task_runner=runner, persist_result=persisted)
    def work():
        futures = mixed.map(range(12))
        for future in futures:
            future.wait()
        return [future.result(raise_on_failure=False) for future in futures]

    got = work()
    assert [n for n, value in enumerate(got) if isinstance(value, Exception)] == [3, 5]
    assert "only on a worker" in str(got[3])
    assert "five is right out" in str(got[5])


def test_an_item_whose_result_cannot_be_read_fails_alone_in_its_chunk(runner):
    @task
    def item(n):
        return {1: threading.Lock, 3: Stubborn}.get(n, lambda: n)()

    @flow(task_runner=runner)
    def work():
        with needs(batch_size=6):
            futures = item.map(range(6))
        return [future.result(raise_on_failure=False) for future in futures]

    got = work()
    assert [n for n, value in enumerate(got) if isinstance(value, Exception)] == [1, 3]
    assert "cannot pickle" in str(got[1])
    assert "only on a worker" in str(got[3])


# ---------------------------------------------------------------------- each task has its own code
@task
def grows(n):
    SEEN.append(n)
    return list(SEEN)


@task
def rated():
    return RATE


@task
def drawn(_):
    return RANDOM.random()


@pytest.mark.parametrize("batch_size", [None, 3])
def test_tasks_share_no_state_of_the_flows_module(runner, batch_size):
    @flow(task_runner=runner)
    def work():
        with needs(batch_size=batch_size):
            return grows.map(range(3)).result(), drawn.map(range(3)).result()

    seen, draws = work()
    assert seen == [[0], [1], [2]]
    assert len(set(draws)) == 1


def test_a_changed_global_is_seen_by_the_next_submit(runner):
    @flow(task_runner=runner)
    def work():
        found = []
        for rate in (10, 100, 1000):
            globals()["RATE"] = rate
            found.append(rated.submit())
        return [each.result() for each in found]

    assert work() == [10, 100, 1000]


# ---------------------------------------------------------------------- what cannot be sent
def test_a_task_that_cannot_be_sent_leaves_no_task_run_behind(runner, prefect):
    @flow(task_runner=runner)
    def work():
        with pytest.raises(TaskError, match="parameter 'n'"):
            bodies.double.map([1, 2, threading.Lock(), 4])
        with pytest.raises(TaskError, match="parameter 'n'"):
            bodies.double.submit(threading.Lock())
        return str(flow_run.id), bodies.double.submit(1).result()

    run, got = work()
    assert got == 2
    assert [r["state_type"] for r in prefect.terminal(run, 1)] == ["COMPLETED"]


# ---------------------------------------------------------------------- items of a chunk
def test_each_item_of_a_chunk_has_the_tasks_time_and_is_asked_whether_to_try_again(runner, tmp_path):
    def again(task, run, state):
        return "not yet" in state.message

    slow = bodies.slow.with_options(timeout_seconds=1)
    picky = bodies.stubborn.with_options(retries=3, retry_condition_fn=again)

    @flow(task_runner=runner)
    def work():
        with needs(batch_size=4):
            timed = slow.map([0.4, 0.4, 0.4, 1.3])
            tried = picky.map([str(tmp_path)] * 2, ["not yet", "never"])
        return [future.state.name for future in timed if future.wait() is None], [
            future.state.name for future in tried if future.wait() is None
        ]

    assert work() == (["Completed", "Completed", "Completed", "TimedOut"], ["Completed", "Failed"])
    assert {path.name: len(path.read_text()) for path in tmp_path.iterdir()} == {"not yet": 3, "never": 1}


def test_items_that_are_stored_by_name_are_stored_each_by_its_own(runner, prefect):
    kept = bodies.double.with_options(result_storage_key="doubled-{parameters[n]}", persist_result=True)

    @flow(task_runner=runner)
    def work():
        with needs(batch_size=4):
            return kept.map(range(3)).result()

    assert work() == [0, 2, 4]
    assert sorted(path.name for path in (prefect.home / "storage").glob("doubled-*")) == [
        f"doubled-{n}" for n in range(3)
    ]


# ---------------------------------------------------------------------- what lies beside the script
SCRIPT = """
import sys
from prefect import flow, task
from agent import GovernedTaskRunner
from shop_helper import tax

@task
def total(price):
    from shop.prices import rounded
    return rounded(price + tax(price))

@flow(task_runner=GovernedTaskRunner(address=sys.argv[1]))
def shop():
    return sum(total.map([10, 20]).result())

print("sum", shop())
"""


def _run(dask_address, folder, *arguments, script=None):
    done = subprocess.run(
        [sys.executable, *arguments, dask_address],
        input=script, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "ORC_GOVERNED": "optional"},
    )  # fmt: skip
    return done.stdout + done.stderr


def test_modules_beside_a_script_go_with_its_tasks_and_a_changed_one_is_taken_up(dask_address, prefect, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/prices.py").write_text("def rounded(x): return round(x)")
    (tmp_path / "shop_helper.py").write_text("def tax(price): return price * 0.2")
    (tmp_path / "shop.run.py").write_text(SCRIPT)
    assert "sum 36" in _run(dask_address, tmp_path, "shop.run.py")
    (tmp_path / "shop_helper.py").write_text("def tax(price): return price * 0.1")
    # a script on standard input, and a notebook's cell, have what lies in the working folder beside them
    assert "sum 33" in _run(dask_address, tmp_path, "-", script=SCRIPT)


def test_a_module_that_no_worker_has_is_named_with_what_helps(dask_address, prefect, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/shop_helper_elsewhere.py").write_text("def tax(price): return price * 0.2")
    script = "import sys; sys.path.append('lib')\n" + SCRIPT.replace("shop_helper", "shop_helper_elsewhere")
    said = _run(dask_address, tmp_path, "-", script=script)
    assert "cannot import the module 'shop_helper_elsewhere'" in said
    assert "PYTHONPATH" in said


OWN = """
from prefect import flow, task
from agent import GovernedTaskRunner

@task
def double(n):
    return 2 * n

@flow(task_runner=GovernedTaskRunner(
    cluster_kwargs={"n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
))
def doubled():
    return sum(double.map([1, 2]).result())

if __name__ == "__main__":
    print("sum", doubled())
"""


def test_a_script_on_standard_input_has_a_cluster_of_its_own(prefect, tmp_path):
    assert "sum 6" in _run("tcp://unused", tmp_path, "-", script=OWN)


# ---------------------------------------------------------------------- nothing says that ORC governs
def test_on_a_plain_cluster_the_class_alone_runs_ungoverned_with_one_warning(
    dask_address, processes, monkeypatch, caplog, tmp_path
):
    monkeypatch.chdir(tmp_path)  # no pools file
    for name in ("ORC_GOVERNED", "ORC_SCHEDULER", "ORC_MODE", "ORC_POOLS"):
        monkeypatch.delenv(name, raising=False)
    log = processes.folder / "runner-scheduler.log"
    before = log.stat().st_size

    @flow(task_runner=GovernedTaskRunner(address=dask_address))
    def work():
        return bodies.double.map([1, 2]).result()

    with caplog.at_level(logging.WARNING):
        assert work() == [2, 4]
        assert work() == [2, 4]
    said = [r.getMessage() for r in caplog.records if "not governed" in r.getMessage()]
    assert len(said) == 1
    assert "orc up --scheduler" in said[0]
    assert "Traceback" not in log.read_text()[before:]


@pytest.mark.parametrize("how", ["ORC_SCHEDULER", "ORC_MODE", "ORC_POOLS", "ORC_GOVERNED", "mode"])
def test_where_governance_was_asked_for_a_plain_cluster_is_refused(dask_address, monkeypatch, tmp_path, how):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ORC_GOVERNED", raising=False)
    said = {"ORC_SCHEDULER": dask_address, "ORC_MODE": "govern", "ORC_POOLS": "pools.yaml", "ORC_GOVERNED": "required"}
    if how in said:
        monkeypatch.setenv(how, said[how])
    made = partial(GovernedTaskRunner, address=dask_address)
    with made(mode="govern" if how == "mode" else None) as running:
        with pytest.raises(Exception, match="no ORC extension"):
            running.submit(bodies.double, {"n": 1})
