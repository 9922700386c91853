"""Whose files these are: what somebody else put into the folder one stands in is not obeyed."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path


def stranger(path: Path) -> str:
    """Why a file or folder may say what somebody else wants, or "" when only this user and root can have written it."""
    said = path.stat()
    me = os.geteuid()
    if said.st_uid not in (me, 0):
        return f"{path} belongs to {_name(said.st_uid)}"
    if said.st_mode & stat.S_IWOTH and not said.st_mode & stat.S_ISVTX:
        return f"everybody can change {path}"
    if said.st_mode & stat.S_IWGRP and said.st_gid != _own_group(me):
        return f"a group can change {path}"
    return ""


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _own_group(uid: int) -> int:
    """The user's first group: with the usual mask of private groups, nobody else is in it."""
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return os.getegid()
