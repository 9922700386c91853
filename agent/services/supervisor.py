"""The owner of every process of `orc up`: starts them in order, starts them again when they die, ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import signal
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agent.errors import OrcError, ServiceError
from agent.model import units
from agent.services import state as states
from agent.services.state import State
from agent.settings import Settings, load

logger = logging.getLogger("orc.supervisor")


@dataclass(slots=True)
class Service:
    """One process and how to know that it is there."""

    name: str
    command: list[str]
    ready: Callable[[], bool] | None = None
    #: exit codes after which it is not started again
    final: tuple[int, ...] = ()
    #: variables of its own
    env: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    deaths: list[float] = field(default_factory=list)


class Supervisor:
    """Runs until SIGTERM or SIGINT; ends what it started, whatever happens."""

    def __init__(self, settings: Settings, theirs: dict[str, str]) -> None:
        self.settings, self.theirs = settings, theirs
        old = states.read(settings)
        me = psutil.Process()
        self.state = State(
            instance=uuid.uuid4().hex,
            pid=os.getpid(),
            created=me.create_time(),
            ports=states.ports(settings, old.ports if old else {}),
            theirs=theirs,
        )
        self.environment = {**os.environ, **states.environment(settings, self.state)}
        self.stopping = asyncio.Event()
        self.watchers: list[asyncio.Task[None]] = []
        host, ports = settings.host, self.state.ports
        self.scheduler = self.environment["ORC_SCHEDULER"]
        python = [sys.executable, "-m"]
        self.server = Service(
            "prefect-server",
            [*python, "prefect", "server", "start", "--host", host, "--port", str(ports["prefect"])],
            lambda: _answers(f"{self.environment['PREFECT_API_URL']}/health"),
        )
        self.dask = Service(
            "dask-scheduler",
            [
                *python,
                "distributed.cli.dask_scheduler",
                "--host",
                host,
                "--port",
                str(ports["scheduler"]),
                "--dashboard-address",
                f"{host}:{ports['dashboard']}",
                "--preload",
                "agent.scheduler.preload",
            ],
            lambda: _listens(host, ports["scheduler"]),
            env={
                "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{units.duration_ms(settings.worker_ttl)}ms",
                # it would drop the copies of results that spot workers have; draining a worker uses one of its own
                "DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__START": "False",
                # how often it measures its own loop; at Dask's 20 ms that is half of what it does at rest
                "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
            },
        )
        self.graph = (
            Service(
                "graph",
                [*python, "agent.graph.server", str(ports["graph"])],
                lambda: (settings.home / "graph.json").exists() and _listens(host, ports["graph"]),
            )
            if settings.graph_url is None and importlib.util.find_spec("arcadedb_embedded") is not None
            else None
        )
        self.governor = Service(
            "governor", [*python, "agent.governor.process", self.scheduler], lambda: self._governed()
        )
        self.mind = Service("mind", [*python, "agent.mind.process"])
        self.worker = Service(
            "prefect-worker",
            [*python, "prefect", "worker", "start", "--pool", settings.work_pool, "--type", "process", "--name", "orc"],
        )

    # ------------------------------------------------------------------ up
    async def run(self) -> int:
        """Start, watch, end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self.stopping.set)
        try:
            starting = asyncio.ensure_future(self._start())
            await asyncio.wait(
                {starting, asyncio.ensure_future(self.stopping.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
            if starting.done():
                starting.result()
                await self.stopping.wait()
            else:
                starting.cancel()
            return 0
        except OrcError as error:
            self.state.failed = str(error)
            self._say("failed")
            logger.error("%s", error)
            return 1
        finally:
            await self._end()

    async def _start(self) -> None:
        (self.settings.home / "governor.json").unlink(missing_ok=True)
        self._say(
            "starting what is ours of the Prefect server and the Dask scheduler"
            if self.theirs
            else "starting the Prefect server and the Dask scheduler"
        )
        # a graph that does not start is said and does not keep the rest from starting
        starting_graph = asyncio.ensure_future(self._graph())
        own = [s for s, name in ((self.dask, "scheduler"), (self.server, "prefect")) if name not in self.theirs]
        await asyncio.gather(*(self._up(service) for service in own))
        if "prefect" in self.theirs:
            self._say("starting the governor")
            await asyncio.gather(self._up(self.governor), self._up(self.mind))
        else:
            self._say("starting the governor, registering deployments")
            await asyncio.gather(self._up(self.governor), self._register())
            await asyncio.gather(self._up(self.mind), self._up(self.worker))
        await starting_graph
        self.state.ready = True
        self._say("ready")

    async def _graph(self) -> None:
        if self.graph is not None:
            try:
                await self._up(self.graph)
            except ServiceError as error:
                logger.warning("there is no graph: %s", error)

    def _say(self, doing: str) -> None:
        self.state.doing = doing
        states.write(self.settings, self.state)
        logger.info("%s", doing)

    async def _up(self, service: Service, patience: float = 150.0) -> None:
        await self._spawn(service)
        until = time.monotonic() + patience
        while service.ready is not None and not await asyncio.to_thread(service.ready):
            if service.process is not None and service.process.returncode is not None:
                raise ServiceError(
                    f"{service.name} ended with {service.process.returncode}: {self._last_line(service)} (see {self._log(service)})"
                )
            if time.monotonic() > until:
                raise ServiceError(f"{service.name} did not answer within {patience:.0f} s (see {self._log(service)})")
            await asyncio.sleep(0.2)
        self.watchers.append(asyncio.create_task(self._watch(service)))

    async def _spawn(self, service: Service) -> None:
        with self._log(service).open("ab") as log:
            service.process = await asyncio.create_subprocess_exec(
                *service.command,
                env={**self.environment, **service.env},
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        self.state.processes[service.name] = service.process.pid
        states.write(self.settings, self.state)

    async def _watch(self, service: Service) -> None:
        """Start it again when it dies: at once the first time, later when it dies often."""
        while not self.stopping.is_set() and service.process is not None:
            code = await service.process.wait()
            if self.stopping.is_set() or code in service.final:
                return
            now = time.monotonic()
            service.deaths = [t for t in service.deaths if now - t < 60] + [now]
            pause = min(5.0, 0.3 * 2 ** (len(service.deaths) - 1))
            logger.warning("%s ended with %s; starting it again in %.1f s", service.name, code, pause)
            await asyncio.sleep(pause)
            await self._spawn(service)

    async def _register(self) -> None:
        """The work pool, and the deployments of prefect.yaml when they changed."""
        mark = self.settings.home / "registered"
        digest = _digest([Path("prefect.yaml"), *sorted(Path("flows").glob("*.py"))]) + str(Path.cwd())
        if not Path("prefect.yaml").exists():
            logger.info("no prefect.yaml here: no deployments are registered")
        if mark.exists() and mark.read_text() == digest and (self.settings.home / "prefect").exists():
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agent.services.register",
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        (self.settings.home / "logs" / "register.log").write_bytes(out)
        if process.returncode:
            raise ServiceError(
                f"the deployments could not be registered: {out.decode(errors='replace').strip().splitlines()[-1]} (see logs/register.log in {self.settings.home})"
            )
        mark.write_text(digest)

    def _governed(self) -> bool:
        return (self.settings.home / "governor.json").exists()

    def _log(self, service: Service) -> Path:
        return self.settings.home / "logs" / f"{service.name}.log"

    def _last_line(self, service: Service) -> str:
        lines = self._log(service).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    # ------------------------------------------------------------------ down
    async def _end(self) -> None:
        """Flows first, then the governor, the workers, the scheduler, the server; then whatever carries our mark."""
        self.stopping.set()
        for watcher in self.watchers:
            watcher.cancel()
        for service in (self.worker, self.governor, self.mind, self.graph, self.dask, self.server):
            if service is not None and service.process is not None and service.process.returncode is None:
                await asyncio.to_thread(_end_tree, service.process.pid)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(service.process.wait(), 1)
            if service is self.governor:
                workers = [p for p in states.family(self.state.instance) if "distributed.cli.dask_worker" in _line(p)]
                await asyncio.to_thread(states.end_all, workers)
        await asyncio.to_thread(states.end_all, states.family(self.state.instance))
        shutil.rmtree(self.settings.home / "scratch", ignore_errors=True)
        for file in (self.settings.home / "workers").glob("*.json"):
            file.unlink(missing_ok=True)
        if not self.state.failed:
            states.file_of(self.settings).rename(states.file_of(self.settings).with_name("services.last.json"))


def _end_tree(pid: int) -> None:
    try:
        process = psutil.Process(pid)
        states.end_all([process, *process.children(recursive=True)])
    except psutil.NoSuchProcess:
        return


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def _listens(host: str, port: int) -> bool:
    import socket

    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex((host, port)) == 0


def _digest(files: list[Path]) -> str:
    out = hashlib.sha256()
    for file in files:
        if file.exists():
            out.update(file.read_bytes())
    return out.hexdigest()


def main() -> None:
    """Entry point of the supervisor's process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = load()
    (settings.home / "logs").mkdir(parents=True, exist_ok=True)
    try:
        supervisor = Supervisor(settings, json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    except OrcError as error:
        logger.error("%s", error)
        sys.exit(1)
    sys.exit(asyncio.run(supervisor.run()))


if __name__ == "__main__":
    main()
