"""Talking to the governor's HTTP face."""

from __future__ import annotations

import json
from typing import Any

import httpx

from agent.errors import ServiceError
from agent.settings import Settings


def ask(settings: Settings, method: str, path: str, said: dict[str, Any] | None = None) -> dict[str, Any]:
    """The governor's answer. Raises ServiceError when there is none, or when it says no."""
    file = settings.home / "governor.json"
    try:
        face = json.loads(file.read_text())
        arguments: dict[str, Any] = {"json": said} if method == "POST" else {"params": said or {}}
        reply = httpx.request(
            method, face["url"] + path, headers={"X-Orc-Token": face["token"]}, timeout=20, **arguments
        )
    except (OSError, json.JSONDecodeError, httpx.HTTPError) as error:
        raise ServiceError(f"no governor answers ({file}: {error}); start one with `orc up`") from error
    body: dict[str, Any] = reply.json()
    if reply.status_code >= 400:
        raise ServiceError(body.get("error", f"the governor answered {reply.status_code}"))
    return body
