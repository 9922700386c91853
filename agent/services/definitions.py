"""What `orc up` runs: the command of each service, its variables, and how to know that it is there."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agent.api import address
from agent.model import units
from agent.processes import ports
from agent.processes.bootstrap import FENCED
from agent.services import environment
from agent.services.state import State
from agent.settings import Settings


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
    #: rights that files lack which it writes; -1: as of the supervisor
    umask: int = -1
    process: asyncio.subprocess.Process | None = None
    deaths: list[float] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Services:
    """All that may run; those that are somebody else's are not started."""

    prefect_server: Service
    dask_scheduler: Service
    #: None: there is no graph, or it is not ours
    graph: Service | None
    governor: Service
    mind: Service
    prefect_worker: Service

    def last_to_first(self) -> tuple[Service | None, ...]:
        """The order in which they end: flows first."""
        return (self.prefect_worker, self.governor, self.mind, self.graph, self.dask_scheduler, self.prefect_server)


def define(settings: Settings, state: State, scheduler: str, umask: int) -> Services:
    """The services of one `orc up`.

    Args:
        state: its ports, and whose servers are used.
        scheduler: address of the Dask scheduler that is governed.
        umask: of the shell that ran `orc up`: rights that files lack which flows and tasks write.
    """
    host, at = settings.host, state.ports
    python = [sys.executable, "-m"]
    of_tasks = settings.umask_of_tasks()
    of_tasks = umask if of_tasks is None else of_tasks
    return Services(
        prefect_server=Service(
            "prefect-server",
            [*python, "prefect", "server", "start", "--host", host, "--port", str(at["prefect"])],
            lambda: _answers(f"http://{host}:{at['prefect']}/api/health"),
            env={} if "prefect" in state.theirs else environment.prefect_server(settings, state),
        ),
        dask_scheduler=Service(
            "dask-scheduler",
            [
                *(*python, "distributed.cli.dask_scheduler", "--host", host, "--port", str(at["scheduler"])),
                *("--dashboard-address", f"{host}:{at['dashboard']}", "--preload", "agent.scheduler.preload"),
            ],
            lambda: ports.listens(host, at["scheduler"]),
            env={
                "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{units.duration_ms(settings.worker_ttl)}ms",
                # it would drop the copies of results that spot workers have; draining a worker uses one of its own
                "DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__START": "False",
                # how often it measures its own loop; at Dask's 20 ms that is half of what it does at rest
                "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "500ms",
            },
        ),
        graph=_graph(settings, at["graph"]),
        governor=Service(
            "governor",
            [*python, "agent.governor.process", scheduler],
            lambda: address.is_there(settings.home),
            # another governor has taken over: one more would only take it back
            final=(FENCED,),
            env={"ORC_TASK_UMASK": f"{of_tasks:03o}"},
        ),
        mind=Service("mind", [*python, "agent.mind.process"]),
        prefect_worker=Service(
            "prefect-worker",
            [
                *python,
                "prefect",
                "worker",
                "start",
                "--pool",
                settings.prefect.work_pool,
                "--type",
                "process",
                "--name",
                "orc",
            ],
            umask=of_tasks,
        ),
    )


def _graph(settings: Settings, port: int) -> Service | None:
    if settings.graph.url is not None or importlib.util.find_spec("arcadedb_embedded") is None:
        return None
    return Service(
        "graph",
        [sys.executable, "-m", "agent.graph.server", str(port)],
        lambda: (settings.home / "graph.json").exists() and ports.listens(settings.host, port),
    )


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
