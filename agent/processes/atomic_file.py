"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write(file: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Put the content in the file's place in one step: a reader sees the old one or the new one, also after a crash.

    Args:
        mode: rights of the file, whatever the process's mask takes away from new ones.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as out:
            os.chmod(new, mode)
            out.write(content.encode() if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())
        new.replace(file)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
