"""Prefect's API as a stranger's program calls it: by HTTP, with the credentials that `orc env` prints."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import httpx


def post(env: Mapping[str, str], path: str, body: Mapping[str, Any], timeout: float = 20) -> Any:
    """One call's answer.

    Args:
        env: PREFECT_API_URL and, where the server asks for it, PREFECT_API_AUTH_STRING.
        timeout: seconds it may take.
    """
    user, _, password = env.get("PREFECT_API_AUTH_STRING", "").partition(":")
    auth = (user, password) if user else None
    with httpx.Client(base_url=env["PREFECT_API_URL"], timeout=timeout, auth=auth) as api:
        me = str(uuid.uuid4())
        # a server that does not protect against forged requests answers 422
        token = api.get("/csrf-token", params={"client": me})
        headers = {}
        if token.status_code == 200:
            headers = {"Prefect-Csrf-Client": me, "Prefect-Csrf-Token": token.json()["token"]}
        return api.post(path, json=body, headers=headers).json()
