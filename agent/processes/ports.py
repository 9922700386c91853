"""TCP ports of this machine."""

from __future__ import annotations

import socket
from collections.abc import Collection

import psutil


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True


def free(host: str = "127.0.0.1", but: Collection[int] = ()) -> int:
    """A port nobody listens on, and none of those."""
    while True:
        with socket.socket() as s:
            s.bind((host, 0))
            port = int(s.getsockname()[1])
        if port not in but:
            return port


def listens(host: str, port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as s:
        s.settimeout(0.5)
        return s.connect_ex((host, port)) == 0


def owner(port: int) -> str:
    """Who listens there, as the end of a sentence; "" when it cannot be seen."""
    for c in psutil.net_connections("inet"):
        if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port and c.pid:
            return f" by process {c.pid} ({psutil.Process(c.pid).name()})"
    return ""
