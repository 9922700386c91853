"""Processes with an owner that ends them, and the mark by which those that outlive it are found."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from agent.processes import ports

ROOT = Path(__file__).parent.parent
#: in the environment of everything that a test session starts, however far below; what ORC itself reads begins
#: otherwise
MARK = "HARNESS_SESSION"


def free_port() -> int:
    """A port nobody listens on."""
    return ports.free()


def carrying(name: str, value: str) -> list[psutil.Process]:
    """Processes with that variable in their environment, but this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            if process.pid != os.getpid() and process.environ().get(name) == value:
                found.append(process)
    return found


def command(process: psutil.Process) -> str:
    """Its command line; "" when it has ended."""
    with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
        return " ".join(process.cmdline())
    return ""


def kill(processes: Iterable[psutil.Process]) -> None:
    """SIGKILL to each; those that have ended already are passed over."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


class Processes:
    """Starts processes, each with a log of its own in a folder, and ends them with their whole trees."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        """Nothing is started yet.

        Args:
            env: of the processes; by default what this process has when it starts one.
        """
        self.folder, self.env = folder, env
        #: in the order they were started
        self.started: list[subprocess.Popen[bytes]] = []
        #: the last that was started under a name
        self.named: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *arguments: str, name: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A Python module as a process, its output in a log of that name."""
        return self.run(sys.executable, "-m", *arguments, name=name, env=env)

    def run(
        self, *command: str, name: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT
    ) -> subprocess.Popen[bytes]:
        """A program as a process, its output in a log of that name; `env` is added to the environment."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                list(command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**(os.environ if self.env is None else self.env), "PYTHONPATH": str(ROOT), **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        self.started.append(process)
        self.named[name] = process
        return process

    def end(self) -> None:
        """Kill every tree that is left, the last first."""
        for process in reversed(self.started):
            with contextlib.suppress(psutil.NoSuchProcess):
                tree = psutil.Process(process.pid)
                kill([*tree.children(recursive=True), tree])
            process.wait(10)
