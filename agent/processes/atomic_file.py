"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write(
    file: Path, content: str | bytes, mode: int = 0o600, before: Callable[[int], None] = lambda descriptor: None
) -> None:
    """Put the content in the file's place in one step: a reader sees the old one or the new one, also after a crash.

    Args:
        mode: rights of the file, whatever the process's mask takes away from new ones.
        before: called with the new file's descriptor before it is in place.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as out:
            os.chmod(new, mode)
            out.write(content.encode() if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())
            before(out.fileno())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
