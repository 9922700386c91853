"""The owner of every process of `orc up`: starts them in order, starts them again when they die, ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import time
import uuid
from pathlib import Path

import psutil

from agent.errors import OrcError, ServiceError
from agent.processes import bootstrap, family
from agent.processes.lock import Lock
from agent.services import environment, home, ports
from agent.services import state as states
from agent.services.definitions import Service, define
from agent.services.state import State
from agent.settings import Settings, load

logger = logging.getLogger("orc.supervisor")


class Supervisor:
    """Runs until SIGTERM or SIGINT; ends what it started, whatever happens."""

    def __init__(self, settings: Settings, theirs: dict[str, str], umask: int) -> None:
        """The services and how to start them; nothing is started yet.

        Args:
            theirs: addresses of servers that run already, which are used and not started.
            umask: of the shell that ran `orc up`: rights that files lack which flows and tasks write.
        """
        self.settings, self.theirs = settings, theirs
        old = states.read(settings)
        me = psutil.Process()
        self.state = State(
            instance=uuid.uuid4().hex,
            pid=os.getpid(),
            created=me.create_time(),
            ports=ports.choose(settings, old.ports if old else {}),
            theirs=theirs,
        )
        if "prefect" not in theirs:
            environment.new_prefect_auth(settings)
        self.environment = {**os.environ, **environment.environment(settings, self.state)}
        self.stopping = asyncio.Event()
        self.watchers: list[asyncio.Task[None]] = []
        self.services = define(settings, self.state, self.environment["ORC_SCHEDULER"], umask)

    # ------------------------------------------------------------------ up
    async def run(self) -> int:
        """Start, watch, end."""
        bootstrap.on_signals(self.stopping.set, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
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
        self._say(
            "starting what is ours of the Prefect server and the Dask scheduler"
            if self.theirs
            else "starting the Prefect server and the Dask scheduler"
        )
        # a graph that does not start is said and does not keep the rest from starting
        starting_graph = asyncio.ensure_future(self._graph())
        services = self.services
        both = ((services.dask_scheduler, "scheduler"), (services.prefect_server, "prefect"))
        own = [service for service, name in both if name not in self.theirs]
        await asyncio.gather(*(self._up(service) for service in own))
        if "prefect" in self.theirs:
            self._say("starting the governor")
            await asyncio.gather(self._up(services.governor), self._up(services.mind))
        else:
            self._say("starting the governor, registering deployments")
            await asyncio.gather(self._up(services.governor), self._register())
            await asyncio.gather(self._up(services.mind), self._up(services.prefect_worker))
        await starting_graph
        self.state.ready = True
        self._say("ready")

    async def _graph(self) -> None:
        if self.services.graph is not None:
            try:
                await self._up(self.services.graph)
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
                    f"{service.name} ended with {service.process.returncode}: {self._last_line(service)} "
                    f"(see {self._log(service)})"
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
                umask=service.umask,
            )
        self.state.processes[service.name] = service.process.pid
        states.write(self.settings, self.state)

    async def _watch(self, service: Service) -> None:
        """Start it again when it dies: at once the first time, later when it dies often."""
        while not self.stopping.is_set() and service.process is not None:
            code = await service.process.wait()
            if self.stopping.is_set():
                return
            if code in service.final:
                logger.error(
                    "%s ended with %s and is not started again: another one has taken over; "
                    "`orc down` and `orc up` here take it back (see %s)",
                    service.name,
                    code,
                    self._log(service),
                )
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
        files = [Path("prefect.yaml"), *sorted(Path("flows").glob("*.py")), Path(__file__).with_name("register.py")]
        digest = _digest(files) + str(Path.cwd())
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
            last = out.decode(errors="replace").strip().splitlines()[-1]
            raise ServiceError(
                f"the deployments could not be registered: {last} (see logs/register.log in {self.settings.home})"
            )
        mark.write_text(digest)

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
        for service in self.services.last_to_first():
            if service is not None and service.process is not None and service.process.returncode is None:
                await asyncio.to_thread(family.end_tree, service.process.pid)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(service.process.wait(), 1)
            if service is self.services.governor:
                workers = [
                    p
                    for p in family.family(self.state.instance)
                    if "distributed.cli.dask_worker" in family.command_of(p)
                ]
                await asyncio.to_thread(family.end_all, workers)
        await asyncio.to_thread(family.end_all, family.family(self.state.instance))
        shutil.rmtree(self.settings.home / "scratch", ignore_errors=True)
        for file in (self.settings.home / "workers").glob("*.json"):
            file.unlink(missing_ok=True)
        if not self.state.failed:
            states.file_of(self.settings).rename(states.file_of(self.settings).with_name("services.last.json"))


def _digest(files: list[Path]) -> str:
    out = hashlib.sha256()
    for file in files:
        if file.exists():
            out.update(file.read_bytes())
    return out.hexdigest()


def _main() -> int:
    # what ORC writes is for its user alone; what flows and tasks write is not ours to decide
    umask = os.umask(0o077)
    settings = load()
    home.prepare(settings.home)
    lock = Lock(int(sys.argv[2])) if len(sys.argv) > 2 else home.lock(settings.home)
    lock.keep(f"process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
    return asyncio.run(Supervisor(settings, json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}, umask).run())


def main() -> None:
    """Entry point of the supervisor's process; addresses of servers that are not ours, and the lock it was handed."""
    bootstrap.run("orc.supervisor", _main)


if __name__ == "__main__":
    main()
