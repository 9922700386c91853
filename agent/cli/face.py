"""Talking to the governor's HTTP face."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent.errors import ServiceError

if TYPE_CHECKING:
    from agent.settings import Settings

#: seconds the governor is given to answer
PATIENCE = 20.0


def ask(settings: Settings, method: str, path: str, said: dict[str, Any] | None = None) -> dict[str, Any]:
    """The governor's answer. Raises ServiceError when there is none, when it says no, or when it cannot be read."""
    import httpx  # a sixth of a second, which only who asks pays

    file = settings.home / "governor.json"
    try:
        face = json.loads(file.read_text())
        url, token = str(face["url"]), str(face["token"])
    except OSError as error:
        raise ServiceError(f"no governor answers ({error}); start one with `orc up`") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ServiceError(f"{file} is not what a governor writes; end it with `orc down` and start anew") from error
    arguments: dict[str, Any] = {"json": said} if method == "POST" else {"params": said or {}}
    try:
        reply = httpx.request(method, url + path, headers={"X-Orc-Token": token}, timeout=PATIENCE, **arguments)
    except httpx.TimeoutException as error:
        raise ServiceError(
            f"the governor at {url} has not answered {path} within {PATIENCE:.0f} s; it is busy or stuck, "
            f"see {settings.home / 'logs' / 'governor.log'}"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(f"no governor answers at {url} ({error}); start one with `orc up`") from error
    try:
        body = reply.json()
    except ValueError:
        body = None
    if reply.status_code >= 400:
        why = body.get("error") if isinstance(body, dict) else None
        raise ServiceError(
            str(why) if why else f"the governor answered {reply.status_code} to {path}, without a reason"
        )
    if not isinstance(body, dict):
        raise ServiceError(
            f"what answers at {url} is no governor: {path} gave no JSON object; is another program at that port?"
        )
    return body
