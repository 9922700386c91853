"""Credentials in Prefect's settings: a task run brings none, as whoever reaches the scheduler reads what lies there.

A worker that has credentials of its own for the flow's server uses those. One that has none, as in a cluster that ORC
did not start, asks the flow's process, which tells that worker alone, in its memory.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from prefect.context import SettingsContext
from pydantic import BaseModel, SecretStr

from agent.errors import SettingError

#: Dask's topic of workers that ask
TOPIC = "orc-credentials"
#: seconds a worker waits to be told, and between two times it asks: a new scheduler knows of nobody who listens
PATIENCE, AGAIN = 60.0, 5.0
#: kept in a worker process; a flow run has one
KEPT = 64
#: a setting that holds credentials and is not typed so; one that is typed so, and holds them only as any address may
_HEADERS, _DATABASE = ("client", "custom_headers"), ("server", "database", "connection_url")
_API_URL = ("api", "url")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """What a task run does not bring along, as the worker is told of it."""

    #: by which the flow's process knows it
    name: str
    #: the settings that are to be filled in
    paths: tuple[Path, ...]


class Told:
    """The values of withheld settings on their way: no log shows them."""

    def __init__(self, values: Mapping[Path, Any]) -> None:
        self.values = dict(values)

    def __repr__(self) -> str:
        return f"Told({', '.join('.'.join(path) for path in self.values)})"


# ---------------------------------------------------------------------- in the flow's process
def withhold(context: Mapping[str, Any], settings: SettingsContext | None) -> tuple[dict[str, Any], dict[Path, Any]]:
    """Prefect's serialized context without credentials, and those that a worker needs.

    Args:
        settings: those that were serialized.
    """
    said = context.get("settings_context")
    if not said or settings is None:
        return dict(context), {}
    dumped, values = _copy(said["settings"]), dict[Path, Any]()
    paths = {*_typed(settings.settings, ()), *_with_userinfo(dumped, ()), _HEADERS}
    for path in sorted(paths):
        if value := _take(dumped, path):
            values[path] = value
    if _API_URL in values or _at(dumped, _API_URL) is not None:
        # who speaks to a server by its address needs nothing of the server's own side
        values = {path: value for path, value in values.items() if path[0] != "server"}
    profile = dict(said["profile"])
    names = {each.name for each in settings.profile.settings if each.is_secret or _path(each.accessor) in paths}
    profile["settings"] = {n: value for n, value in (profile.get("settings") or {}).items() if n not in names}
    return {**context, "settings_context": {**said, "profile": profile, "settings": dumped}}, values


def _typed(model: BaseModel, above: Path) -> list[Path]:
    """Settings of a secret type that are set."""
    found: list[Path] = []
    for name in type(model).model_fields:
        value, path = getattr(model, name), (*above, name)
        if isinstance(value, BaseModel):
            found += _typed(value, path)
        elif isinstance(value, SecretStr) and path != _DATABASE:
            found.append(path)
    return found


def _with_userinfo(nested: Mapping[str, Any], above: Path) -> list[Path]:
    """Settings that are an address with a user's name or password."""
    found: list[Path] = []
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found += _with_userinfo(value, (*above, name))
        elif isinstance(value, str) and "://" in value and "@" in urlsplit(value).netloc:
            found.append((*above, name))
    return found


def _path(accessor: str) -> Path:
    return tuple(accessor.split("."))


# ---------------------------------------------------------------------- on the worker
_told: dict[str, dict[Path, Any]] = {}
_some = threading.Condition()


def receive(name: str, told: Told) -> None:
    """Called on a worker by the flow's process."""
    with _some:
        _told[name] = told.values
        while len(_told) > KEPT:
            _told.pop(next(iter(_told)))
        _some.notify_all()


def filled(
    said: Mapping[str, Any], withheld: Withheld | None, worker: Any, patience: float = PATIENCE
) -> dict[str, Any]:
    """The serialized settings with what was withheld. Raises SettingError where nobody tells it.

    Args:
        worker: Dask's.
        patience: seconds to be told within.
    """
    if withheld is None:
        return dict(said)
    values = own(said["settings"], withheld)
    if values is None:
        values = _asked(withheld, worker, patience)
    if values is None:
        url = _at(said["settings"], _API_URL)
        raise SettingError(
            f"worker {worker.address} has no credentials for Prefect's server{f' at {url}' if url else ''}, and the "
            f"flow's process did not tell them within {patience:g} s: start the worker with "
            f"{' and '.join(_variable(path) for path in withheld.paths)} and PREFECT_API_URL in its environment"
        )
    settings = _copy(said["settings"])
    for path, value in values.items():
        _put(settings, path, value)
    return {**said, "settings": settings}


def own(settings: Mapping[str, Any], withheld: Withheld) -> dict[Path, Any] | None:
    """This process's own values of what was withheld, where it has all of them for the same server; else None."""
    mine = SettingsContext.get()
    if mine is None or (url := _at(settings, _API_URL)) is None:
        return None
    if (mine.settings.api.url or "").rstrip("/") != url.rstrip("/"):
        # never to another server
        return None
    values = {path: _own_value(mine.settings, path) for path in withheld.paths}
    return values if all(values.values()) else None


def _own_value(model: Any, path: Path) -> Any:
    for name in path:
        model = getattr(model, name, None)
    return model.get_secret_value() if isinstance(model, SecretStr) else model


def _asked(withheld: Withheld, worker: Any, patience: float) -> dict[Path, Any] | None:
    with _some:
        left = patience
        while withheld.name not in _told and left > 0:
            worker.log_event(TOPIC, {"name": withheld.name, "worker": worker.address})
            pause = min(AGAIN, left)
            _some.wait_for(lambda: withheld.name in _told, pause)
            left -= pause
        return _told.get(withheld.name)


# ---------------------------------------------------------------------- nested mappings
def _copy(nested: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _copy(value) if isinstance(value, dict) else value for name, value in nested.items()}


def _at(nested: Any, path: Path) -> Any:
    for name in path:
        nested = nested.get(name) if isinstance(nested, Mapping) else None
    return nested


def _take(nested: dict[str, Any], path: Path) -> Any:
    inner = _at(nested, path[:-1])
    return inner.pop(path[-1], None) if isinstance(inner, dict) else None


def _put(nested: dict[str, Any], path: Path, value: Any) -> None:
    for name in path[:-1]:
        nested = nested.setdefault(name, {})
    nested[path[-1]] = value


def _variable(path: Path) -> str:
    return f"PREFECT_{'_'.join(path)}".upper()
