"""Shared by all tests: values to build snapshots from, and an owner for every process a test starts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.processes import ports

ROOT = Path(__file__).parent.parent
pytest_plugins = ["tests.services.fixtures"]


def free_port() -> int:
    """A port nobody listens on."""
    return ports.free()


def until(condition: Callable[[], Any], seconds: float = 30.0, every: float = 0.05) -> Any:
    """The first true value of a condition; fails when the time is up."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(every)
    raise AssertionError(f"not within {seconds} s: {getattr(condition, '__doc__', None) or condition}")


class Processes:
    """Starts processes and ends them with their whole trees."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str, name: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A Python module as a process, its output in a log of that name."""
        return self.run(sys.executable, "-m", *arguments, name=name, env=env)

    def run(
        self, *command: str, name: str, env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """A program as a process, its output in a log of that name."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                list(command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=cwd or ROOT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Kill every tree that is left."""
        for process in reversed(self.started):
            with contextlib.suppress(psutil.NoSuchProcess):
                tree = psutil.Process(process.pid)
                for child in [*tree.children(recursive=True), tree]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.kill()
            process.wait(10)


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Processes of the whole session."""
    owner = Processes(tmp_path_factory.mktemp("logs"))
    yield owner
    owner.end()
