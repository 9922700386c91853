"""Processes: the same one as before, those of one `orc up`, and their end."""

from __future__ import annotations

import contextlib
import os

import psutil

#: variable that marks every process of one `orc up`
INSTANCE = "ORC_INSTANCE"


def alive(pid: int, created: float) -> bool:
    """Whether that very process runs; ids are used again, so its start tells it from another.

    Args:
        created: when it started, as psutil says it.
    """
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(instance: str) -> list[psutil.Process]:
    """Every process of this user that carries the instance's mark, but this one."""
    out = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(INSTANCE) == instance and process.pid != os.getpid():
                out.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return out


def end_all(processes: list[psutil.Process], grace: float = 5.0) -> None:
    """Terminate, wait, kill what is left.

    Args:
        grace: seconds they have for each.
    """
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=grace)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=grace)


def end_tree(pid: int) -> None:
    """A process and what it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        end_all([process, *process.children(recursive=True)])


def command_of(process: psutil.Process) -> str:
    """Its command line; "" when it is gone or not ours."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""
