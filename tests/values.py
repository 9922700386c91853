"""Builders of planner values, with sensible defaults."""

from __future__ import annotations

from typing import Any

from agent.model.needs import Needs
from agent.model.pools import Pool, PriceStep, Selector
from agent.model.snapshot import Group, Policy, PoolState, Snapshot, Worker
from agent.planner.plan import VERSION

MINUTE, HOUR = 60_000, 3_600_000


def pool(name: str = "on-demand", market: str = "on-demand", usd: float = 0.36, **changes: Any) -> Pool:
    """A pool of one-slot workers of 4 GiB."""
    values: dict[str, Any] = {
        "name": name,
        "market": market,
        "cpus": 1,
        "memory_mib": 4096,
        "slots": 1,
        "max_workers": 4,
        "startup_ms": 10_000,
        "provider": "local",
        "price": (PriceStep(since_ms=0, usd_micros_per_hour=round(usd * 1_000_000)),),
        "selector": Selector(name=f"{name}-*"),
    }
    return Pool(**{**values, **changes})


def worker(name: str, **changes: Any) -> Worker:
    """An idle worker."""
    values: dict[str, Any] = {
        "name": name,
        "address": f"tcp://{name}",
        "slots": 1,
        "bound": 0,
        "cpus_free": 1,
        "memory_free_mib": 4096,
        "gpus_free": 0,
        "idle_since_ms": 0,
        "launched_ms": 0,
    }
    return Worker(**{**values, **changes})


def state(of: Pool, idle: int = 0, **changes: Any) -> PoolState:
    """A pool with so many idle workers."""
    values: dict[str, Any] = {
        "pool": of,
        "usd_micros_per_hour": of.price[0].usd_micros_per_hour,
        "startup_ms": of.startup_ms,
        "workers": tuple(
            worker(
                f"{of.name}-{n}", cpus_free=of.cpus, slots=of.slots, memory_free_mib=of.memory_mib, gpus_free=of.gpus
            )
            for n in range(idle)
        ),
    }
    return PoolState(**{**values, **changes})


def group(id: str = "g", ready: int = 1, needs: Needs | None = None, **changes: Any) -> Group:
    """A group of tasks of a minute, as their author says."""
    values: dict[str, Any] = {
        "id": id,
        "task_class": "work",
        "name": "work",
        "needs": needs or Needs(runtime_ms=MINUTE, interruptible=True),
        "root_run": "root",
        "flow_run": "flow",
        "ready": ready,
        "since_ms": 0,
    }
    return Group(**{**values, **changes})


def snapshot(*states: PoolState, groups: tuple[Group, ...] = (), now_ms: int = 0, **changes: Any) -> Snapshot:
    """A snapshot with the default policy."""
    values: dict[str, Any] = {
        "now_ms": now_ms,
        "planner": VERSION,
        "rules_digest": "",
        "seed": 0,
        "policy": Policy(),
        "pools": states,
        "groups": groups,
    }
    return Snapshot(**{**values, **changes})
