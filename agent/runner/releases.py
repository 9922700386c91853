"""Futures that are dropped together are let go of in few messages.

The scheduler reads those that arrive together in one piece.

Dask's client sends one for each, and a flow that ends drops thousands.
"""

from __future__ import annotations

from typing import Any

#: seconds a release waits for company
GATHER = 0.01
#: keys in a message
MOST = 1000


class Releases:
    """Goes between a client and what it lets go of. What it asks for stays in its order. In the client's loop only."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._keys: list[Any] = []
        self._send = client._send_to_scheduler_safe
        client._send_to_scheduler_safe = self._in_order
        client._release_key = self._release

    def _release(self, key: Any) -> None:
        client = self._client
        if (state := client.futures.pop(key, None)) is not None:
            state.cancel()
        if client.status == "closed":
            return
        if not self._keys:
            client.loop.call_later(GATHER, self.flush)
        self._keys.append(key)

    def _in_order(self, message: Any) -> None:
        self.flush()
        self._send(message)

    def flush(self) -> None:
        """Send what waits."""
        keys, self._keys = self._keys, []
        for at in range(0, len(keys), MOST):
            self._send({"op": "client-releases-keys", "keys": keys[at : at + MOST], "client": self._client.id})
