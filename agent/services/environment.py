"""The variables by which processes reach this ORC, and those of its own Prefect server."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from agent.processes import atomic_file
from agent.processes.family import INSTANCE
from agent.services.state import State
from agent.settings import Settings

#: Prefect's server records each state change in a transaction of its own; many in one are several times as many a
#: second, and what it cannot record in time it drops. Whole seconds: the recorder's interval is cast to an integer, and
#: at 0 it spins
RECORDING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
}
#: user's name in what Prefect's server asks for; it knows one shared name and password only
USER = "orc"


def environment(settings: Settings, state: State) -> dict[str, str]:
    """Variables by which flows, workers and people reach this ORC."""
    home, root = settings.home.absolute(), str(Path.cwd())
    scheduler = state.theirs.get("scheduler")
    said = {
        INSTANCE: state.instance,
        "ORC_HOME": str(home),
        "ORC_SCHEDULER": scheduler or f"tcp://{settings.host}:{state.ports['scheduler']}",
        "ORC_RULES": str(settings.rule_files().absolute()),
        "ORC_WORK_POOL": settings.prefect.work_pool,
        "ORC_CHAIN": settings.chain or scheduler or "local",
    }
    if settings.pools_declared():
        said["ORC_POOLS"] = str(settings.pools.absolute())
    if "prefect" in state.theirs:
        # their server, and their settings of it
        return {**said, "PREFECT_API_URL": state.theirs["prefect"], **_python(root)}
    if (auth := prefect_auth(settings)) is not None:
        said["PREFECT_API_AUTH_STRING"] = auth
    return {
        **said,
        "PREFECT_API_URL": f"{_prefect(settings, state)}/api",
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "results"),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        **_python(root),
    }


def prefect_server(settings: Settings, state: State) -> dict[str, str]:
    """Variables of our Prefect server alone: nobody else needs its database or how it guards itself.

    Whoever may call it runs code here, by a deployment. It asks for the instance's credentials, and a page of another
    origin neither reads its answers nor makes it write.
    """
    at = _prefect(settings, state)
    origins = [at]
    if settings.host == "127.0.0.1":
        origins.append(f"http://localhost:{state.ports['prefect']}")
    said = {
        "PREFECT_SERVER_API_AUTH_STRING": new_prefect_auth(settings),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_UI_API_URL": f"{at}/api",
        **RECORDING,
    }
    if settings.prefect.database_url is not None:
        said["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = settings.prefect.database_url
    return said


def prefect_auth(settings: Settings) -> str | None:
    """What our Prefect server asks for, NAME:PASSWORD; None before there is one."""
    try:
        return _file(settings).read_text().strip()
    except FileNotFoundError:
        return None


def new_prefect_auth(settings: Settings) -> str:
    """The same, made where there is none.

    It stays: a browser has to be told once. Without its file, another is made.
    """
    found = prefect_auth(settings)
    if found is None:
        found = f"{USER}:{secrets.token_urlsafe(18)}"
        atomic_file.write(_file(settings), found)
    return found


def _file(settings: Settings) -> Path:
    return settings.home / "prefect-auth"


def _prefect(settings: Settings, state: State) -> str:
    return f"http://{settings.host}:{state.ports['prefect']}"


def _python(root: str) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join(
            dict.fromkeys(p for p in (root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)) if p)
        ),
        "PYTHONUNBUFFERED": "1",
    }
