"""Workers as plain `dask worker` processes of this machine; a spot pool obeys its trace."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.errors import NoCapacityError
from agent.model.leases import EndCause
from agent.model.pools import Pool
from agent.pools.port import Gone, Notice, Price, Report
from agent.pools.spot_trace import SpotTrace
from agent.processes import atomic_file
from agent.processes.family import alive

#: seconds a worker that was told to end may take
GRACE = 8.0
_WORDS = {EndCause.INTERRUPTED: "taken away by the spot market"}


@dataclass(slots=True)
class _Process:
    pool: str
    pid: int
    #: the process's start, to tell it from another of the same id
    created: float
    #: when its notice runs out, monotonic seconds
    taken_at: float | None = None
    ending: EndCause | None = None


class LocalProvider:
    """Launches, watches and ends worker processes; they outlive the governor and are found again by their records."""

    def __init__(
        self,
        scheduler: str,
        home: Path,
        pools: Mapping[str, Pool],
        traces: Mapping[str, SpotTrace],
        environment: Mapping[str, str],
        host: str = "127.0.0.1",
        umask: int | None = None,
    ) -> None:
        """How workers are started.

        Args:
            host: the interface they listen on; whoever reaches a worker runs code on it.
            umask: rights that files lack which their tasks write; by default as of this process.
        """
        self.host, self.umask = host, umask
        self.scheduler, self.pools, self.traces, self.environment = scheduler, pools, traces, dict(environment)
        self.records, self.logs, self.scratch = home / "workers", home / "logs", home / "scratch"
        for folder in (self.records, self.logs, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, _Process] = {}
        self.report: Report = lambda observation: None
        #: pool → wall time its trace began; → wall time it was last used
        self.began: dict[str, float] = {}
        self.used: dict[str, float] = {}
        self._watcher: asyncio.Task[None] | None = None
        #: there are workers to watch
        self._some = asyncio.Event()
        #: when `began` and `used` were written last, wall time
        self._remembered = 0.0
        self._prices: dict[str, int] = {}

    # ------------------------------------------------------------------ the port
    async def adopt(self, report: Report) -> dict[str, int | None]:
        """See `Provider`."""
        self.report = report
        found: dict[str, int | None] = {}
        for file in self.records.glob("*.json"):
            said = json.loads(file.read_text())
            if file.stem == "spot-traces":
                self.began, self.used = said["began"], said["used"]
                continue
            process = _Process(said["pool"], said["pid"], said["created"])
            if _alive(process):
                self.processes[file.stem], found[file.stem] = process, None
                continue
            with contextlib.suppress(FileNotFoundError):
                ended = self._ended(file.stem).stat().st_mtime
                if ended >= process.created - 1:
                    found[file.stem] = round(ended * 1000)
            self._forget(file.stem)
        if self.processes:
            self._some.set()
        self._watcher = asyncio.create_task(self._watch())
        return found

    async def launch(self, pool: Pool, worker: str) -> None:
        """See `Provider`."""
        delay = 0.0
        if (trace := self.traces.get(pool.name)) is not None:
            available, price = self._market(pool.name, trace)
            self._priced(pool.name, price)
            if not available:
                raise NoCapacityError(f"no spot capacity in {dict(pool.labels).get('zone', pool.name)}")
            delay = trace.play.launch_delay_seconds
        if delay:
            await asyncio.sleep(delay)
        command = [
            sys.executable,
            "-m",
            "distributed.cli.dask_worker",
            self.scheduler,
            "--name",
            worker,
            "--nthreads",
            str(pool.slots),
            # its HTTP server listens whatever --no-dashboard says, on all interfaces unless it is told where
            "--host",
            self.host,
            "--dashboard-address",
            f"{self.host}:0",
            "--no-nanny",
            "--no-dashboard",
            "--memory-limit",
            f"{pool.memory_mib}MiB",
            "--death-timeout",
            "30",
            "--local-directory",
            str(self.scratch),
            "--preload",
            "agent.worker.preload",
        ]
        if pool.resources:
            command += ["--resources", " ".join(f"{name}={amount / 1000:g}" for name, amount in pool.resources)]
        environment = {
            # how often it measures its own loop; Dask's 20 ms wake an idle worker fifty times a second
            "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
            **os.environ,
            **self.environment,
            "OMP_NUM_THREADS": str(pool.cpus),
            "ORC_WORKER_POOL": pool.name,
            "ORC_WORKER_ENDED": str(self._ended(worker)),
            "ORC_WORKER_GPUS": str(0 if pool.emulated else pool.gpus),
        }
        if not pool.gpus or pool.emulated:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        with (self.logs / f"worker-{worker}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
                umask=-1 if self.umask is None else self.umask,
            )
        entry = _Process(pool.name, process.pid, psutil.Process(process.pid).create_time())
        self.processes[worker] = entry
        self._some.set()
        record = {"pool": pool.name, "pid": entry.pid, "created": entry.created}
        atomic_file.write(self.records / f"{worker}.json", json.dumps(record))
        # reaps the child; its end is seen by the watcher
        self._reapers = {t for t in getattr(self, "_reapers", set()) if not t.done()} | {
            asyncio.create_task(process.wait())
        }

    async def end(self, worker: str) -> None:
        """See `Provider`."""
        process = self.processes.get(worker)
        if process is None:
            return
        process.ending = EndCause.DRAINED
        _signal(process, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while _alive(process) and time.monotonic() < until:
            await asyncio.sleep(0.05)
        _signal(process, signal.SIGKILL)

    async def close(self) -> None:
        """Stop watching; the workers stay."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher

    # ------------------------------------------------------------------ markets and processes
    def _ended(self, worker: str) -> Path:
        """What a worker touches when it ends; a governor that was away then learns it from here."""
        return self.records / f"{worker}.ended"

    def _forget(self, worker: str) -> None:
        (self.records / f"{worker}.json").unlink(missing_ok=True)
        self._ended(worker).unlink(missing_ok=True)

    def _market(self, pool: str, trace: SpotTrace) -> tuple[bool, int]:
        """Capacity and price now; the trace begins at the first launch after the pool was empty for a while."""
        now = time.time()
        if (begins := trace.play.begins_unix_seconds) is not None:
            return trace.at(max(0.0, now - begins))
        again = pool not in self.began or now - self.used.get(pool, 0.0) > trace.play.rewind_after_seconds
        if again:
            self.began[pool] = now
        self.used[pool] = now
        if again or now - self._remembered > 1:
            self._remembered = now
            self._remember()
        return trace.at(now - self.began[pool])

    def _priced(self, pool: str, price: int) -> None:
        if price != self._prices.get(pool):
            self._prices[pool] = price
            self.report(Price(pool=pool, usd_micros_per_hour=price))

    def _remember(self) -> None:
        atomic_file.write(self.records / "spot-traces.json", json.dumps({"began": self.began, "used": self.used}))

    async def _watch(self) -> None:
        while True:
            if not self.processes:
                self._some.clear()
                await self._some.wait()
            for worker, process in list(self.processes.items()):
                if not _alive(process):
                    del self.processes[worker]
                    self._forget(worker)
                    cause = process.ending or EndCause.DIED
                    self.report(Gone(worker=worker, cause=cause, detail=_WORDS.get(cause, "")))
            for name, trace in self.traces.items():
                self._play(name, trace)
            await asyncio.sleep(0.1)

    def _play(self, pool: str, trace: SpotTrace) -> None:
        mine = {worker: process for worker, process in self.processes.items() if process.pool == pool}
        if not mine:
            return
        available, price = self._market(pool, trace)
        self._priced(pool, price)
        now = time.monotonic()
        for worker, process in mine.items():
            if not available and process.taken_at is None:
                process.taken_at = now + trace.play.notice_seconds
                self.report(Notice(worker=worker, left_ms=round(trace.play.notice_seconds * 1000)))
            if process.taken_at is not None and now >= process.taken_at:
                process.ending = EndCause.INTERRUPTED
                _signal(process, signal.SIGKILL)


def _alive(process: _Process) -> bool:
    return alive(process.pid, process.created)


def _signal(process: _Process, number: int) -> None:
    """To the worker's whole process group, if it is still that worker."""
    if _alive(process):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
