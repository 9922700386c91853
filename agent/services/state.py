"""What runs: addresses, ports and process ids under ORC_HOME, and the environment that reaches them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.errors import ServiceError
from agent.settings import Settings

#: marks every process that belongs to one `orc up`
INSTANCE = "ORC_INSTANCE"


@dataclass(slots=True, kw_only=True)
class State:
    """One `orc up`, as it is written to services.json."""

    instance: str
    pid: int
    created: float
    ports: dict[str, int]
    ready: bool = False
    #: addresses of servers that are not ours: "scheduler", "prefect"
    theirs: dict[str, str] = field(default_factory=dict)
    #: what is being waited for, or what failed
    doing: str = "starting"
    failed: str = ""
    processes: dict[str, int] = field(default_factory=dict)

    def alive(self) -> bool:
        """Whether its supervisor runs."""
        try:
            return (
                abs(psutil.Process(self.pid).create_time() - self.created) < 1
                and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False


def file_of(settings: Settings) -> Path:
    """services.json"""
    return settings.home / "services.json"


def read(settings: Settings) -> State | None:
    """What services.json says, or None."""
    try:
        return State(**json.loads(file_of(settings).read_text()))
    except (OSError, json.JSONDecodeError, TypeError):
        return None


def write(settings: Settings, state: State) -> None:
    """Replace services.json in one step."""
    new = file_of(settings).with_suffix(".new")
    new.write_text(json.dumps(asdict(state)))
    new.replace(file_of(settings))


def ports(settings: Settings, old: Mapping[str, int]) -> dict[str, int]:
    """A port for each service: the one that is set, else last time's, else a free one. Raises ServiceError."""
    out: dict[str, int] = {}
    for name in ("prefect", "scheduler", "dashboard", "graph"):
        wanted = getattr(settings, f"{name}_port")
        if wanted and not _free(settings.host, wanted):
            raise ServiceError(
                f"port {wanted} (ORC_{name.upper()}_PORT) is in use{_owner(wanted)}; end that, or set another port (0: any free one)"
            )
        if not wanted and old.get(name) and _free(settings.host, old[name]):
            wanted = old[name]
        out[name] = wanted or _any(settings.host, set(out.values()))
    return out


def _free(host: str, port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True


def _any(host: str, but: set[int]) -> int:
    while True:
        with socket.socket() as s:
            s.bind((host, 0))
            port = int(s.getsockname()[1])
        if port not in but:
            return port


def _owner(port: int) -> str:
    for c in psutil.net_connections("inet"):
        if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port and c.pid:
            return f" by process {c.pid} ({psutil.Process(c.pid).name()})"
    return ""


#: Prefect's server records each state change in a transaction of its own; many in one are several times as many a second,
#: and what it cannot record in time it drops. Whole seconds: the recorder's interval is cast to an integer, and at 0 it spins
RECORDING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
}


def environment(settings: Settings, state: State) -> dict[str, str]:
    """Variables by which flows, workers and people reach this ORC."""
    home, root = settings.home.absolute(), str(Path.cwd())
    scheduler = state.theirs.get("scheduler")
    said = {
        INSTANCE: state.instance,
        "ORC_HOME": str(home),
        "ORC_SCHEDULER": scheduler or f"tcp://{settings.host}:{state.ports['scheduler']}",
        "ORC_RULES": str(settings.rule_files().absolute()),
        "ORC_WORK_POOL": settings.work_pool,
        "ORC_CHAIN": settings.chain or scheduler or "local",
    }
    if settings.pools_declared():
        said["ORC_POOLS"] = str(settings.pools.absolute())
    if "prefect" in state.theirs:
        # their server, and their settings of it
        return {**said, "PREFECT_API_URL": state.theirs["prefect"], **_python(root)}
    api = f"http://{settings.host}:{state.ports['prefect']}/api"
    if settings.prefect_database_url is not None:
        said["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = settings.prefect_database_url
    return {
        **said,
        "PREFECT_API_URL": api,
        "PREFECT_UI_API_URL": api,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **RECORDING,
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "results"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        **_python(root),
    }


def _python(root: str) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join(
            dict.fromkeys(p for p in (root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)) if p)
        ),
        "PYTHONUNBUFFERED": "1",
    }


def family(instance: str) -> list[psutil.Process]:
    """Every process of this user that carries the instance's mark."""
    out = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(INSTANCE) == instance and process.pid != os.getpid():
                out.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return out


def end_all(processes: list[psutil.Process], grace: float = 5.0) -> None:
    """Terminate, wait, kill what is left."""
    for process in processes:
        _quietly(process.terminate)
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        _quietly(process.kill)
    psutil.wait_procs(left, timeout=grace)


def _quietly(call: Any) -> None:
    try:
        call()
    except psutil.NoSuchProcess:
        return
