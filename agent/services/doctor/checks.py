"""What may be wrong with a cluster, and what to do about each: findings from facts, which are gathered beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import distributed

from agent.cluster.inspect import SeenCluster, SeenWorker
from agent.model.pools import Pool, Selector, pool_of
from agent.scheduler import compatibility
from agent.scheduler.compatibility import ADAPTIVE

Level = Literal["good", "warning", "wrong"]
#: clocks may differ by so much before deadlines and prices are read wrongly, ms
CLOCKS_MS = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's answer."""

    what: str
    level: Level
    says: str
    #: what to do; "" when nothing
    do: str = ""


def good(what: str, says: str) -> Finding:
    """Nothing to do."""
    return Finding(what=what, level="good", says=says)


def wrong(what: str, says: str, do: str) -> Finding:
    """It does not work until that is mended."""
    return Finding(what=what, level="wrong", says=says, do=do)


def warning(what: str, says: str, do: str) -> Finding:
    """It works, and something else may not."""
    return Finding(what=what, level="warning", says=says, do=do)


def versions(cluster: SeenCluster, _: Sequence[Pool]) -> list[Finding]:
    """Python and distributed of the scheduler, the workers and this process."""
    import sys

    ours = (".".join(map(str, sys.version_info[:2])), distributed.__version__)
    theirs = {(w.python, w.distributed) for w in cluster.workers if w.answered} | {
        (cluster.python, cluster.distributed)
    }
    if theirs == {ours}:
        return [good("versions", f"Python {ours[0]} and distributed {ours[1]} everywhere")]
    out = []
    if pythons := {p for p, _ in theirs} - {ours[0]}:
        out.append(
            wrong(
                "Python",
                f"{', '.join(sorted(pythons))} there and {ours[0]} here",
                "tasks are pickled: run the same minor version of Python everywhere",
            )
        )
    if others := {d for _, d in theirs} - {ours[1]}:
        out.append(
            warning(
                "distributed",
                f"{', '.join(sorted(others))} there and {ours[1]} here",
                "install one version everywhere; Dask promises nothing between versions",
            )
        )
    month = ".".join(cluster.distributed.split(".")[:2])
    if month not in compatibility.TESTED:
        out.append(
            wrong(
                "distributed",
                f"{cluster.distributed} is untested with ORC",
                f"use {' or '.join(compatibility.TESTED)}, or set ORC_ALLOW_UNTESTED=true",
            )
        )
    return out


def extension(cluster: SeenCluster, _: Sequence[Pool]) -> list[Finding]:
    """Is the scheduler governed, and by whom?"""
    orc = cluster.orc
    if orc is None:
        return [
            warning(
                "extension",
                "the scheduler has no ORC extension: nothing is held or recorded",
                f"orc up --scheduler {cluster.address} (ORC_MODE=shadow first), "
                "or start it with --preload agent.scheduler.preload",
            )
        ]
    if orc["degraded"]:
        return [wrong("extension", "; ".join(orc["degraded"]), "the scheduler runs ungoverned until that is mended")]
    if not orc["epoch"]:
        return [
            wrong(
                "governor",
                "no governor follows the scheduler: in mode govern, tasks are held until one does",
                "orc up, or look at logs/governor.log in ORC_HOME",
            )
        ]
    return [good("extension", f"mode {orc['mode']}, governed in epoch {orc['epoch']}")]


def settings_of_dask(cluster: SeenCluster, _: Sequence[Pool]) -> list[Finding]:
    """Dask's own settings that mean something else here."""
    out = []
    if cluster.no_workers_timeout:
        out.append(
            warning(
                "no-workers-timeout",
                f"distributed.scheduler.no-workers-timeout is {cluster.no_workers_timeout}",
                "it does not count the time ORC holds a task; use deadlines, and `orc why` for what waits",
            )
        )
    if cluster.orc is not None and cluster.orc.get("adaptive"):
        out.append(wrong("Adaptive", "an Adaptive scales this cluster and takes held tasks for demand", ADAPTIVE))
    return out or [good("Dask's settings", "none that ORC minds")]


def workers(cluster: SeenCluster, _: Sequence[Pool]) -> list[Finding]:
    """Do they answer, and are their clocks right?"""
    if not cluster.workers:
        return [wrong("workers", "there are none", "start some: dask worker ADDRESS, or a pool with a provider")]
    silent = [w.name for w in cluster.workers if not w.answered]
    late = [w for w in cluster.workers if w.answered and abs(w.clock_ms) > CLOCKS_MS + w.clock_error_ms]
    out = []
    if silent:
        out.append(
            warning(
                "workers",
                f"{len(silent)} do not answer: {some(silent)}",
                "a task may hold the interpreter; look at them on the dashboard",
            )
        )
    if late:
        worst = max(late, key=lambda w: abs(w.clock_ms))
        out.append(
            wrong(
                "clocks",
                f"{len(late)} workers are off, {worst.name} by {worst.clock_ms / 1000:+.1f} s",
                "run NTP on them: runtimes and deadlines are read from their clocks",
            )
        )
    return out or [good("workers", f"{len(cluster.workers)} answer, their clocks agree")]


def selectors(cluster: SeenCluster, pools: Sequence[Pool]) -> list[Finding]:
    """Does every pool find its workers, and every worker one pool?"""
    out: list[Finding] = []
    of = {w.name: [p.name for p in pools if _belongs(w, p.selector)] for w in cluster.workers}
    out += [
        wrong(
            "selectors",
            f"pool {pool.name} matches no worker, and none can be launched",
            f"its selector is {_shown(pool.selector)}; `orc init` shows what the workers offer",
        )
        for pool in pools
        if pool.provider is None and not any(pool.name in found for found in of.values())
    ]
    for name, found in of.items():
        if len(found) > 1:
            out.append(
                wrong(
                    "selectors",
                    f"worker {name} belongs to {' and '.join(found)}",
                    "the first one counts; make the selectors exclude each other",
                )
            )
    if left := [name for name, found in of.items() if not found]:
        out.append(
            warning(
                "selectors",
                f"{len(left)} workers belong to no pool: {some(left)}",
                "they are `default`: observed, unrestricted, priced like the dearest pool; add a pool for them",
            )
        )
    out += [
        warning(
            "slots",
            f"worker {worker.name} has {worker.nthreads} threads and pool {pool.name} says {pool.slots} slots",
            "the worker's threads count; say the same in pools.yaml",
        )
        for worker in cluster.workers
        for pool in pools
        if pool.name in of[worker.name] and worker.nthreads != pool.slots
    ]
    return out or [good("selectors", f"{len(of)} workers in {len(pools)} pools, each in one")]


def imports(cluster: SeenCluster, _: Sequence[Pool]) -> list[Finding]:
    """Can the workers import what tasks need?"""
    lacks: dict[tuple[str, str], list[str]] = {}
    for worker in cluster.workers:
        for module, why in worker.lacks:
            lacks.setdefault((module, why), []).append(worker.name)
    what_to_do = {
        "agent": "`orc up --scheduler` sends it; or pip install orc-agent there",
        "prefect": "pip install prefect prefect-dask there: Prefect's tasks run in its engine",
        "prefect_dask": "pip install prefect-dask there",
    }
    out = [
        wrong(
            "Python path",
            f"{len(names)} workers cannot import {module} ({why}): {some(names)}",
            what_to_do.get(
                module,
                "put its folder on their PYTHONPATH, or install it there; "
                "the flow's own folder is on the flow's path alone",
            ),
        )
        for (module, why), names in sorted(lacks.items())
    ]
    return out or [good("Python path", "the workers import what was asked for")]


def results(cluster: SeenCluster, _: Sequence[Pool]) -> list[Finding]:
    """Do results outlive the worker that made them?"""
    known = [w for w in cluster.workers if w.persists is not None]
    if not known:
        return []
    if off := [w.name for w in known if not w.persists]:
        return [
            warning(
                "results",
                f"{len(off)} workers do not persist results: {some(off)}",
                "set PREFECT_RESULTS_PERSIST_BY_DEFAULT=true, or a finished task runs again when its worker is lost",
            )
        ]
    hosts, folders = {w.host for w in known}, {w.storage for w in known}
    if len(hosts) > 1 and all(folder.startswith("/") for folder in folders):
        return [
            warning(
                "results",
                f"they are kept in local folders ({some(sorted(folders))}) of {len(hosts)} hosts",
                "use a shared folder or a storage block (S3, GCS), or a result is lost with its host",
            )
        ]
    return [good("results", "persisted, where every worker finds them")]


#: in the order people would ask
OF_CLUSTER: tuple[Callable[[SeenCluster, Sequence[Pool]], list[Finding]], ...] = (
    versions,
    extension,
    workers,
    settings_of_dask,
    selectors,
    imports,
    results,
)


def _belongs(worker: SeenWorker, selector: Selector) -> bool:
    said = dict(worker.resources)
    return (
        pool_of((("it", selector),), name=worker.name, host=worker.host, resources=said, nthreads=worker.nthreads)
        == "it"
    )


def _shown(selector: Selector) -> str:
    parts = [
        f"{k}={v}"
        for k, v in (("name", selector.name), ("host", selector.host), ("nthreads", selector.nthreads))
        if v is not None
    ]
    parts += [f"{name}≥{amount:g}" for name, amount in selector.resources]
    return ", ".join(parts) or "empty: it matches nobody"


def some(names: Sequence[str]) -> str:
    """Not more than a line of them."""
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
