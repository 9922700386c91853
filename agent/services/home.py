"""The folder of everything ORC keeps: for its user alone, and for one `orc up` at a time."""

from __future__ import annotations

import stat
from pathlib import Path

from agent.errors import ServiceError
from agent.processes import lock as locks
from agent.processes.lock import Lock

#: rights of others and of the group
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def prepare(home: Path) -> None:
    """Make it where it is missing, and take from others what rights an older ORC left them."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in (home, *(file for file in home.iterdir() if file.is_file() and not file.is_symlink())):
        rights = stat.S_IMODE(path.stat().st_mode)
        if rights & OTHERS:
            path.chmod(rights & ~OTHERS)
    (home / "logs").mkdir(exist_ok=True, mode=0o700)


def open_to_others(home: Path) -> list[Path]:
    """What of it others could read or change: the folder, and files in it that hold secrets or records."""
    if not home.exists():
        return []
    paths = [home, *(file for file in home.iterdir() if file.is_file() and not file.is_symlink())]
    return [path for path in paths if path.stat().st_mode & OTHERS]


def lock(home: Path) -> Lock:
    """Hold it for one `orc up`. Raises ServiceError saying who else does."""
    file = home / "lock"
    taken = Lock.take(file)
    if taken is None:
        raise ServiceError(
            f"ORC is already up or just starting in {home} ({locks.holder(file) or 'another process'}); "
            "`orc status` shows it, `orc down` ends it"
        )
    return taken


def is_held(home: Path) -> bool:
    """Whether an `orc up` holds it now."""
    if not (home / "lock").exists():
        return False
    if (taken := Lock.take(home / "lock")) is None:
        return True
    taken.release()
    return False
