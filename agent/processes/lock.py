"""One process at a time: a lock that ends with whoever holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


class Lock:
    """A file that one process holds; whoever comes second can read who that is.

    The lock is the kernel's: a process that is killed holds nothing. It can be handed to a child, which holds it on.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, file: Path) -> Lock | None:
        """Hold it, or None when somebody else does."""
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        lock = cls(descriptor)
        lock.write(f"process {os.getpid()}")
        return lock

    def keep(self, who: str) -> None:
        """Hold it, also where it was handed to this process, and hand it to no other; say who holds it."""
        os.set_inheritable(self.descriptor, False)
        self.write(who)

    def write(self, who: str) -> None:
        """Say who holds it."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, who.encode(), 0)

    def release(self) -> None:
        """Let go of it here; a child it was handed to holds it on."""
        os.close(self.descriptor)


def holder(file: Path) -> str:
    """Who said last that it holds the lock."""
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return ""
