"""The one client of the governor's API: for the command line, the mind and tests. It imports nothing heavy."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from agent.api import address
from agent.errors import ServiceError

if TYPE_CHECKING:
    from agent.settings import Settings

#: every route but `/metrics` and `/health` stands below it
PREFIX = "/v1"
#: header that carries the token of this instance
TOKEN = "X-Orc-Token"
#: seconds the governor is given to answer
PATIENCE = 20.0


def ask(settings: Settings, method: str, path: str, said: dict[str, Any] | None = None) -> dict[str, Any]:
    """The governor's answer to a route below `/v1`, such as `/status`.

    Raises:
        ServiceError: there is none, it says no, or it cannot be read.
    """
    at = address.read(settings.home)
    if not (url := at.url):
        raise ServiceError(
            f"the governor here stands by: another one governs {settings.chain_name()} on this ledger. It takes over "
            "when that one has not renewed its lease for 10 s; ask where that one was started"
        )
    host, port = urlsplit(url).hostname or "", urlsplit(url).port
    headers = {TOKEN: at.token, "Content-Type": "application/json"}
    body = json.dumps(said or {}) if method == "POST" else None
    query = f"?{urlencode(said)}" if said and method != "POST" else ""
    # not httpx: it takes a tenth of a second to import, and would go to a proxy of the environment
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request(method, PREFIX + path + query, body, headers)
        reply = connection.getresponse()
        text = reply.read()
    except TimeoutError as error:
        raise ServiceError(
            f"the governor at {url} has not answered {path} within {PATIENCE:.0f} s; it is busy or stuck, "
            f"see {settings.home / 'logs' / 'governor.log'}"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ServiceError(f"no governor answers at {url} ({error}); start one with `orc up`") from error
    finally:
        connection.close()
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if reply.status >= 400:
        why = answer.get("error") if isinstance(answer, dict) else None
        raise ServiceError(str(why) if why else f"the governor answered {reply.status} to {path}, without a reason")
    if not isinstance(answer, dict):
        raise ServiceError(
            f"what answers at {url} is no governor: {path} gave no JSON object; is another program there?"
        )
    return answer
