"""Ends what a test session has started when the session itself is gone, however that ended.

`python -m harness.reaper PID MARK`: waits for the process to end, then kills all that carry the mark. Servers start
sessions of their own, so that neither a Ctrl-C at the terminal nor the end of a test process reaches them; fixtures
end them, and this does it where no fixture could: after SIGKILL, after a second Ctrl-C, after the crash of a worker
of pytest-xdist.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import psutil

from harness.processes import MARK, ROOT, carrying, kill


def start(pid: int, mark: str) -> subprocess.Popen[bytes]:
    """A reaper for a process, on its own; it carries no mark. Whoever has ended all by itself kills it."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness.reaper", str(pid), mark],
        env={"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main(pid: int, mark: str) -> None:
    """Wait, then end them; more than once, since a supervisor may start another while it is being ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait()
    for _ in range(10):
        left = carrying(MARK, mark)
        if not left:
            return
        kill(left)
        psutil.wait_procs(left, timeout=1)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
