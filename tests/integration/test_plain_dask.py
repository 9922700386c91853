"""A user's plain Dask on a scheduler that a real governor governs: nothing hangs, everything is on record."""

from __future__ import annotations

import json

import dask
import dask.dataframe as dd
import httpx
import pandas as pd
import pytest
from distributed import Client, as_completed, get_client, worker_client

from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.verify import Report, verify
from harness.cluster import GOVERNED, scheduler, worker
from harness.processes import ROOT, Processes
from harness.wait import until

pytestmark = pytest.mark.real

POOLS = """
pools:
  spot: {market: spot, worker: {cpus: 1, memory: 1 GiB}, price: 0.1, workers: {max: 2}, selector: {name: 'spot-*'}}
  safe: {market: on-demand, worker: {cpus: 1, memory: 1 GiB}, price: 0.3, workers: {max: 2}, selector: {name: 'safe-*'}}
"""


class Plain:
    """A scheduler, two workers a pool, the governor's process, and a client."""

    def __init__(self, folder, processes: Processes) -> None:
        self.folder = folder
        (folder / "pools.yaml").write_text(POOLS)
        env = {
            "ORC_HOME": str(folder),
            "ORC_POOLS": str(folder / "pools.yaml"),
            "ORC_RULES": str(ROOT / "rules"),
            "ORC_MODE": "govern",
            "ORC_CHAIN": "plain",
        }
        self.address = scheduler(processes, "plain-scheduler", *GOVERNED, env=env)
        self.client = Client(self.address, timeout=60, set_as_default=False)
        for name in ("spot-0", "spot-1", "safe-0", "safe-1"):
            more = ("--memory-limit", "1GiB", "--local-directory", str(folder))
            worker(processes, self.address, name, *more, log=f"plain-{name}", env=env)
        self.client.wait_for_workers(4, timeout=60)
        processes.start("agent.governor.process", self.address, name="plain-governor", env=env)
        until(lambda: self.client.sync(self.client.scheduler.orc_state)["epoch"], 60)
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db", "plain")

    def outcomes(self, part: str) -> list[str]:
        """Results of placements whose key has that part, once all are there."""
        until(lambda: not self.ledger.open_placements(), 30, 0.2)
        with self.ledger.reading() as db:
            p, o = t.placement, t.outcome
            joined = p.join(o, (o.c.chain == p.c.chain) & (o.c.placement == p.c.id))
            rows = db.execute(joined.select().where(p.c.key.like(f"%{part}%"))).all()
        return [t.RESULTS[row.result] for row in rows]


@pytest.fixture(scope="module")
def plain(module_processes, tmp_path_factory):
    made = Plain(tmp_path_factory.mktemp("plain"), module_processes)
    yield made
    made.client.close()
    made.ledger.close()


def double(x):
    return 2 * x


@pytest.mark.parametrize("method", ["tasks", "p2p"])
def test_a_merge_of_dataframes_with_both_shuffle_methods(plain, method):
    with dask.config.set({"dataframe.shuffle.method": method}):
        left = dd.from_pandas(pd.DataFrame({"k": range(2000), "v": 1}), npartitions=8)
        right = dd.from_pandas(pd.DataFrame({"k": range(1000, 3000), "w": 2}), npartitions=8)
        found = plain.client.compute((left.merge(right, on="k").w).sum())
        assert found.result(timeout=90) == 2000
    assert "done" in plain.outcomes("")


def test_map_is_placed_task_by_task_and_each_has_an_outcome(plain):
    with dask.annotate(orc={"interruptible": True, "runtime": "1s"}):
        futures = plain.client.map(double, range(40), key="mapped", pure=False)
    assert sum(plain.client.gather(futures)) == sum(range(40)) * 2
    assert plain.outcomes("mapped") == ["done"] * 40


def test_what_completes_first_is_seen_first_and_a_failure_is_its_own(plain):
    futures = plain.client.map(lambda x: 1 // x, [1, 0, 1], key="dividing", pure=False)
    with plain.client.as_current():
        assert sorted(f.status for f in as_completed(futures)) == ["error", "finished", "finished"]
    with pytest.raises(ZeroDivisionError):
        futures[1].result()
    assert sorted(plain.outcomes("dividing")) == ["done", "done", "failed"]


class Counter:
    def __init__(self):
        self.n = 0

    def add(self, n):
        self.n += n
        return self.n


def test_an_actor_is_bound_at_once(plain):
    with plain.client.as_current():
        actor = plain.client.submit(Counter, actor=True).result(timeout=30)
        assert [actor.add(2).result(timeout=10), actor.add(3).result(timeout=10)] == [2, 5]


def fan_out(n):
    with worker_client() as client:
        return sum(client.gather(client.map(double, range(n), pure=False)))


def test_tasks_that_submit_tasks_do_not_deadlock_on_their_own_slots(plain):
    futures = plain.client.map(fan_out, [10] * 6, key="fan", pure=False)
    assert plain.client.gather(futures) == [90] * 6


def fan_out_in_its_place(n):
    client = get_client()
    return sum(client.gather(client.map(double, range(n), pure=False)))


def test_tasks_that_wait_for_their_own_tasks_and_keep_their_thread_do_not_hang(plain):
    """As many as there are workers: none is left for what they wait for, so each lends its place to it."""
    futures = plain.client.map(fan_out_in_its_place, [10] * 4, key="keeping", pure=False)
    assert [future.result(timeout=60) for future in futures] == [90] * 4
    # the places are back: each worker runs one task at a time again
    until(lambda: len(running(plain, "double")) == 0)
    assert plain.client.gather(plain.client.map(double, range(8), pure=False)) == [2 * n for n in range(8)]


def test_resources_that_a_task_asks_for_are_honoured_or_refused_at_once(plain):
    with dask.annotate(resources={"BIG": 1}):
        future = plain.client.submit(double, 1, key="big-ask", pure=False)
    with pytest.raises(Exception, match="BIG"):
        future.result(timeout=30)


def test_needs_that_cannot_be_read_are_refused_with_the_reason(plain):
    with dask.annotate(orc={"memory": "plenty"}):
        future = plain.client.submit(double, 1, key="wrong-need", pure=False)
    with pytest.raises(Exception, match="plenty"):
        future.result(timeout=30)


def slow(x, seconds):
    import time

    time.sleep(seconds)
    return x


def noted(seconds, path, name):
    import time

    time.sleep(seconds)
    with open(path, "a") as file:
        file.write(name + "\n")


def test_what_dask_calls_urgent_runs_next_also_behind_many_and_of_another_class(plain, tmp_path):
    path = str(tmp_path / "order")
    many = [plain.client.submit(noted, 0.4, path, "many", key=f"many-{n}") for n in range(24)]
    until(lambda: running(plain, "many"))
    urgent = plain.client.submit(noted, 0.1, path, "urgent", key="urgent-1", priority=100)
    with dask.annotate(priority=50):
        annotated = dask.delayed(noted)(0.1, path, "annotated", dask_key_name="annotated-1")
        soon = plain.client.compute(annotated)
    plain.client.gather([*many, urgent, soon])
    order = (tmp_path / "order").read_text().split()
    assert order.index("urgent") <= 8
    assert order.index("annotated") <= 9


def running(plain, part):
    """Keys of that part that workers have."""
    return plain.client.run_on_scheduler(
        lambda dask_scheduler: [
            k for k, ts in dask_scheduler.tasks.items() if part in str(k) and ts.state == "processing"
        ]
    )


def test_cancelled_tasks_leave_at_once_whether_held_or_bound(plain):
    futures = plain.client.map(slow, range(30), seconds=2, key="cancelled", pure=False)
    until(lambda: running(plain, "cancelled"))
    plain.client.cancel(futures)
    until(
        lambda: (
            not plain.client.run_on_scheduler(
                lambda dask_scheduler: [k for k in dask_scheduler.tasks if "cancelled" in str(k)]
            )
        ),
        20,
    )
    assert "cancelled" in plain.outcomes("cancelled")
    assert plain.client.submit(double, 4, pure=False).result(timeout=30) == 8


def test_a_restart_ends_held_and_bound_tasks_with_the_cause(plain):
    kept = plain.client.map(slow, range(12), seconds=10, key="restarted", pure=False)
    until(lambda: running(plain, "restarted"))
    plain.client.restart(timeout=60)
    assert "cancelled by restart" in plain.outcomes("restarted")
    assert any(note.body["held"] for note in plain.ledger.notes(["restart"]))
    assert plain.client.submit(double, 5, pure=False).result(timeout=60) == 10
    del kept


def test_the_page_and_the_metrics_say_what_was_done(plain):
    port = plain.client.scheduler_info()["services"]["dashboard"]
    at = f"http://127.0.0.1:{port}"
    assert "Worker pools" in httpx.get(f"{at}/orc", follow_redirects=True).text
    shown = until(lambda: httpx.get(f"{at}/orc/figures").json()["governor"])
    assert {pool["pool"] for pool in shown["pools"]} == {"spot", "safe"}
    assert sum(pool["placed"] for pool in shown["pools"]) >= 40
    assert "orc_scheduler_bound_total" in httpx.get(f"{at}/metrics").text
    face = json.loads((plain.folder / "governor.json").read_text())["url"]
    text = httpx.get(f"{face}/metrics").text
    assert 'orc_outcomes_total{pool="safe",result="done"}' in text
    assert "orc_runtime_ratio_bucket" in text
    assert httpx.get(f"{face}/v1/status").status_code == 403  # all else asks for the token


def test_all_of_it_is_on_record_and_the_record_is_whole(plain):
    assert plain.outcomes("")
    assert [f"{f.seq}: {f.what}" for f in verify(plain.ledger, Report(), replay=True)] == []
