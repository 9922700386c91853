"""Pools that keep no worker, and work that waits for one without a task that could be held."""

from __future__ import annotations

import pytest
from distributed import Client

from harness.cluster import GOVERNED, scheduler
from harness.processes import ROOT
from harness.wait import until

pytestmark = pytest.mark.real

POOLS = """
pools:
  dear: &pool
    market: on-demand
    worker: {cpus: 1, memory: 1 GiB}
    price: 0.9
    workers: {max: 3}
    startup: 4s
    idle: 2s
    provider: local
  cheap: {<<: *pool, price: 0.3}
"""


@pytest.fixture(scope="module")
def empty(module_processes, tmp_path_factory):
    """A client of a governed scheduler without workers."""
    folder = tmp_path_factory.mktemp("zero")
    (folder / "pools.yaml").write_text(POOLS)
    env = {
        "ORC_HOME": str(folder),
        "ORC_POOLS": str(folder / "pools.yaml"),
        "ORC_RULES": str(ROOT / "rules"),
        "ORC_MODE": "govern",
        "ORC_CHAIN": "zero",
    }
    address = scheduler(module_processes, "zero-scheduler", *GOVERNED, env=env)
    client = Client(address, timeout=60, set_as_default=False)
    governor = module_processes.start("agent.governor.process", address, name="zero-governor", env=env)
    until(lambda: client.sync(client.scheduler.orc_state)["epoch"], 60)
    yield client
    client.close()
    governor.terminate()
    governor.wait(30)


def names(client):
    return sorted(w["name"] for w in client.scheduler_info(n_workers=-1)["workers"].values())


def none_left(client):
    """idle workers have been ended, nobody waits any more"""
    until(lambda: not names(client), 60, 1.0)


def test_a_client_that_waits_for_workers_gets_them_where_they_cost_least(empty):
    empty.wait_for_workers(2, timeout=90)
    assert [name.partition("-")[0] for name in names(empty)] == ["cheap", "cheap"]
    none_left(empty)


def test_scattered_data_brings_its_worker(empty):
    future = empty.scatter({"x": 1}, timeout=90)["x"]
    assert future.result(timeout=30) == 1
    future.release()
    none_left(empty)


class Counter:
    def value(self):
        return 7


def test_an_actor_brings_its_worker_and_keeps_it(empty):
    with empty.as_current():
        actor = empty.submit(Counter, actor=True).result(timeout=90)
        assert actor.value().result(timeout=10) == 7
