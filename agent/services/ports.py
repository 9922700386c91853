"""Which ports the services of `orc up` listen on."""

from __future__ import annotations

from collections.abc import Mapping

from agent.errors import ServiceError
from agent.processes import ports
from agent.settings import Settings

#: those with a setting ORC_NAME_PORT that are chosen before anything starts
NAMES = ("prefect", "scheduler", "dashboard", "graph")


def choose(settings: Settings, old: Mapping[str, int]) -> dict[str, int]:
    """A port for each service: the one that is set, else last time's, else a free one. Raises ServiceError."""
    out: dict[str, int] = {}
    for name in NAMES:
        wanted = getattr(settings.ports, name)
        if wanted and not ports.is_free(settings.host, wanted):
            raise ServiceError(
                f"port {wanted} ({settings.ports.variable(name)}) is in use{ports.owner(wanted)}; "
                "end that, or set another port (0: any free one)"
            )
        if not wanted and old.get(name) and ports.is_free(settings.host, old[name]):
            wanted = old[name]
        out[name] = wanted or ports.free(settings.host, out.values())
    return out
