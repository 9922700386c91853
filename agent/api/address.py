"""Where the governor answers: a file in ORC_HOME that is believed only for as long as its governor lives."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import ServiceError
from agent.processes import atomic_file

#: the file, in ORC_HOME
FILE = "governor.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorAddress:
    """What a governor has written."""

    #: "" while it stands by: another one governs
    url: str
    #: what its API asks for
    token: str
    pid: int


class Published:
    """The file as its governor holds it.

    The hold is the kernel's: it ends with the process, however that ends, and no other process of that number has it.
    """

    def __init__(self, home: Path) -> None:
        self._home, self._file = home, home / FILE
        self._held: int | None = None

    def standby(self) -> None:
        """Say that another governor governs, and this one waits; where it governs from here, its word stays."""
        if not is_there(self._home):
            self._write({"standby": True, "pid": os.getpid()})

    def open(self, url: str, token: str) -> None:
        """Say where it answers."""
        self._write({"url": url, "token": token, "pid": os.getpid()})

    def _write(self, said: dict[str, Any]) -> None:
        atomic_file.write(self._file, json.dumps(said), before=self._hold)

    def _hold(self, descriptor: int) -> None:
        before, self._held = self._held, os.dup(descriptor)
        fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if before is not None:
            os.close(before)

    def withdraw(self) -> None:
        """Take it back, where it was not replaced by another's."""
        if self._held is None:
            return
        try:
            if os.path.sameopenfile(self._held, (other := os.open(self._file, os.O_RDONLY))):
                self._file.unlink()
            os.close(other)
        except FileNotFoundError:
            pass
        os.close(self._held)
        self._held = None


def is_there(home: Path) -> bool:
    """Whether a governor lives that has written it."""
    try:
        read(home)
    except ServiceError:
        return False
    return True


def read(home: Path) -> GovernorAddress:
    """The address. Raises ServiceError when no governor has written it, or it is gone."""
    file = home / FILE
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise ServiceError(f"the governor is not running ({error}); start one with `orc up`") from error
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as opened:
        try:
            said = json.load(opened)
            found = GovernorAddress(
                url=str(said.get("url", "")), token=str(said.get("token", "")), pid=int(said["pid"])
            )
            if not found.url and said.get("standby") is not True:
                raise ValueError("it has no URL")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServiceError(
                f"{file} is not what a governor writes; end it with `orc down` and start anew"
            ) from error
        try:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return found
    raise ServiceError(
        f"the governor is not running: process {found.pid} wrote {file} and is gone. `orc up` starts it, and starts it "
        "again when it dies"
    )
