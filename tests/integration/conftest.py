"""A real Dask scheduler with the extension, real worker processes, and a test in the governor's place."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
from distributed import Client, Future

from agent.model.events import Event, TaskEnded, TaskReady, from_wire
from agent.model.pools import Selector
from harness.cluster import GOVERNED, scheduler, worker
from harness.processes import Processes
from harness.wait import until

_epochs = itertools.count(1)


class Cluster:
    """A scheduler process, and workers that come and go."""

    def __init__(self, processes: Processes, name: str, **env: str) -> None:
        self.processes, self.name = processes, name
        self.address = scheduler(processes, f"{name}-scheduler", *GOVERNED, env={"ORC_MODE": "govern", **env})
        self.workers: dict[str, Any] = {}
        self.client = Client(self.address, timeout=30, set_as_default=False)

    def add(self, name: str, nthreads: int = 1, memory: str = "1GiB", resources: str = "") -> None:
        more = ["--nthreads", str(nthreads), "--memory-limit", memory, "--no-nanny"]
        more += ["--resources", resources] if resources else []
        self.workers[name] = worker(self.processes, self.address, name, *more, log=f"{self.name}-{name}")
        until(lambda: name in self.names(), 30)

    def names(self) -> dict[str, str]:
        """Worker name → address."""
        return {w["name"]: a for a, w in self.client.scheduler_info(n_workers=-1)["workers"].items()}

    def kill(self, name: str) -> None:
        self.workers.pop(name).kill()
        until(lambda: name not in self.names(), 30)

    def ask(self, handler: str, **arguments: Any) -> Any:
        return self.client.sync(getattr(self.client.scheduler, handler), **arguments)


class Governor:
    """The governor's side of the protocol, by hand."""

    def __init__(self, cluster: Cluster, pools: dict[str, int], unsafe: tuple[str, ...] = ()) -> None:
        self.cluster, self.epoch, self.deltas = cluster, next(_epochs), []
        #: numbers of governors that may follow this one
        self.epochs = _epochs
        sizes = [
            {
                "name": n,
                "selector": asdict(Selector(name=f"{n}-*")),
                "cpus": slots,
                "memory_mib": 1024,
                "gpus": 0,
                "safe": n not in unsafe,
            }
            for n, slots in pools.items()
        ]
        cluster.ask("orc_instruct", epoch=self.epoch, pools=sizes, mode="govern")
        self.ack = cluster.ask("orc_snapshot", epoch=self.epoch)["ack"]

    def follow(self) -> list[Event]:
        reply = self.cluster.ask("orc_follow", epoch=self.epoch, ack=self.ack, wait=0.2)
        self.ack = reply["ack"]
        self.deltas += [from_wire(told) for told in reply["deltas"]]
        return self.deltas

    def of(self, kind: type[Event]) -> list[Any]:
        """The events of a kind so far."""
        return [event for event in self.follow() if isinstance(event, kind)]

    def keys(self, kind: type[Event]) -> list[Any]:
        """The first field of each."""
        return [event[0] for event in self.of(kind)]

    def ready(self, count: int) -> list[Any]:
        until(lambda: len(set(self.keys(TaskReady))) >= count)
        return list(dict.fromkeys(self.keys(TaskReady)))

    def bind(self, pool: str, *keys: Any, ahead: int = 0, memory: int = 0) -> list[Any]:
        bind = {"pool": pool, "cpus": 1, "memory_mib": memory, "gpus": 0, "ahead": ahead, "keys": list(keys)}
        return list(self.cluster.ask("orc_instruct", epoch=self.epoch, binds=[bind])["bound"][0])

    def ended(self, key: Any) -> list[str]:
        return [event.result for event in self.of(TaskEnded) if event.key == key]


@pytest.fixture(scope="session")
def cluster(processes: Processes) -> Iterator[Cluster]:
    """One scheduler for the session, with a spot and a safe worker."""
    made = Cluster(processes, "shared")
    made.add("spot-0")
    made.add("safe-0")
    yield made
    made.client.close()


@pytest.fixture
def governor(cluster: Cluster) -> Iterator[Governor]:
    """A new governor, and no tasks of another test left."""
    yield Governor(cluster, {"spot": 1, "safe": 1})
    for key in list(cluster.client.futures):  # a caught exception keeps its frame, and that its futures
        Future(key, client=cluster.client).cancel()
    until(lambda: not cluster.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)), 30)
