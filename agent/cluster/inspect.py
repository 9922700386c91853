"""What a running cluster shows: its workers, versions and settings. Nothing is changed by looking."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cloudpickle
import dask
import distributed
from distributed import Client

from agent.cluster.connect import client_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenWorker:
    """A worker as the scheduler knows it, and what it said of itself."""

    name: str
    address: str
    host: str
    nthreads: int
    #: 0: not limited
    memory_mib: int
    resources: tuple[tuple[str, float], ...] = ()
    #: Python's minor version and distributed's; "" when it did not answer
    python: str = ""
    distributed: str = ""
    #: its clock minus ours, ms, within half of the time the question took
    clock_ms: int = 0
    clock_error_ms: int = 0
    #: modules it cannot import, and why
    lacks: tuple[tuple[str, str], ...] = ()
    #: whether Prefect persists results there, and to which local folder; None: not known
    persists: bool | None = None
    storage: str = ""
    answered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCluster:
    """A scheduler and its workers."""

    address: str
    python: str
    distributed: str
    workers: tuple[SeenWorker, ...]
    #: the extension's figures; None: it has none
    orc: dict[str, Any] | None = None
    no_workers_timeout: str = ""


def inspect_cluster(address: str, modules: Sequence[str] = (), patience: float = 10.0) -> SeenCluster:
    """What a cluster shows.

    Args:
        modules: names its workers should be able to import.
        patience: seconds until the scheduler must have answered.

    Raises:
        SchedulerError: it cannot be reached.
    """
    return asyncio.run(_connect_and_inspect(address, modules, patience))


async def _connect_and_inspect(address: str, modules: Sequence[str], patience: float) -> SeenCluster:
    async with client_of(address, patience) as client:
        return await _inspect(client, address, modules)


async def _inspect(client: Client, address: str, modules: Sequence[str]) -> SeenCluster:
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        begin = time.time()
        answers = await client.run(_of_worker, list(modules), on_error="ignore")
        took = round((time.time() - begin) * 1000)
        python, version, timeout, orc = await client.run_on_scheduler(_of_scheduler)
        state = await client.scheduler.orc_state() if orc else None
        info = await client.scheduler.identity(n_workers=-1)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    middle = begin + took / 2000
    workers = [_seen(at, said, answers.get(at), middle, took // 2 + 1) for at, said in sorted(info["workers"].items())]
    return SeenCluster(
        address=address,
        python=python,
        distributed=version,
        workers=tuple(workers),
        orc=state,
        no_workers_timeout=str(timeout or ""),
    )


def _seen(address: str, said: dict[str, Any], answer: Any, middle: float, error_ms: int) -> SeenWorker:
    resources = tuple(sorted((str(k), float(v)) for k, v in (said.get("resources") or {}).items()))
    base: dict[str, Any] = {
        "name": str(said["name"]),
        "address": address,
        "host": said["host"],
        "nthreads": said["nthreads"],
        "memory_mib": (said["memory_limit"] or 0) // 2**20,
        "resources": resources,
    }
    if not isinstance(answer, dict):
        return SeenWorker(**base, answered=False)
    return SeenWorker(
        **base,
        python=answer["python"],
        distributed=answer["distributed"],
        clock_ms=round((answer["now"] - middle) * 1000),
        clock_error_ms=error_ms,
        lacks=tuple(answer["lacks"]),
        persists=answer["persists"],
        storage=answer["storage"],
    )


def _of_scheduler(dask_scheduler: Any) -> tuple[str, str, Any, bool]:
    """Runs there."""
    timeout = dask.config.get("distributed.scheduler.no-workers-timeout", None)
    return _python(), distributed.__version__, timeout, "orc" in dask_scheduler.plugins


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def _of_worker(modules: list[str]) -> dict[str, Any]:
    """Runs there."""
    said: dict[str, Any] = {
        "python": _python(),
        "distributed": distributed.__version__,
        "now": time.time(),
        "lacks": [],
        "persists": None,
        "storage": "",
    }
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a user's module raises is the answer
            said["lacks"].append((name, f"{type(error).__name__}: {error}"))
    try:
        results = importlib.import_module("prefect.settings").get_current_settings().results
        said["persists"], said["storage"] = bool(results.persist_by_default), str(results.local_storage_path)
    except Exception:  # no Prefect there, or another one: not known, and said so
        said["persists"] = None
    return said
