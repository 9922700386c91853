"""A governed scheduler, its governor and its workers as processes of the benches, all ended by their process ids."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from distributed import Client

from agent.processes import ports

ROOT = Path(__file__).parent.parent
#: what a scheduler or worker listens on; its HTTP server is there in spite of --no-dashboard, and must be told too
LOCAL = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard")
#: arguments of a scheduler that ORC governs
GOVERNED = ("--preload", "agent.scheduler.preload")


class Processes:
    """Python modules that run as processes, each with a log of its own in a folder."""

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        self.folder, self.env = folder, dict(env)
        self.started: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, name: str, *arguments: str) -> None:
        """`python -m …`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments], env=self.env, cwd=ROOT, stdout=log, stderr=log
            )

    def scheduler(self, name: str, port: int, *more: str) -> None:
        """A Dask scheduler."""
        self.run(name, "distributed.cli.dask_scheduler", "--port", str(port), *LOCAL, *more)

    def worker(self, name: str, address: str, *more: str) -> None:
        """A Dask worker of one thread."""
        arguments = (address, "--name", name, "--nthreads", "1", *LOCAL, *more)
        self.run(name, "distributed.cli.dask_worker", *arguments)

    def end(self) -> None:
        """All of them, the last first, with what they started."""
        for process in reversed(self.started.values()):
            for child in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                child.kill()
            process.wait()


def free_port() -> int:
    """One of this machine's."""
    return ports.free()


def environment(folder: Path, pools: str, rules: Path) -> dict[str, str]:
    """Of ORC's processes whose home is that folder; writes its pools."""
    (folder / "pools.yaml").write_text(pools)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("ORC_", "PREFECT_"))},
        "PYTHONPATH": str(ROOT),
        "ORC_HOME": str(folder),
        "ORC_POOLS": str(folder / "pools.yaml"),
        "ORC_RULES": str(rules),
        "ORC_MODE": "govern",
    }


def until(condition: Callable[[], object], seconds: float, every: float = 0.25) -> None:
    """Wait for it. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s: {condition}")
        time.sleep(every)


@contextmanager
def up(
    folder: Path, env: Mapping[str, str], workers: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Client, Processes]]:
    """A scheduler with the extension, workers (name → their arguments) and the governor, which follows it already."""
    processes, port = Processes(folder, env), free_port()
    address = f"tcp://127.0.0.1:{port}"
    try:
        processes.scheduler("scheduler", port, *GOVERNED)
        for name, more in workers.items():
            processes.worker(name, address, *more)
        with Client(address, timeout=60) as client:
            client.wait_for_workers(len(workers))
            processes.run("governor", "agent.governor.process", address)
            until(lambda: client.sync(client.scheduler.orc_state)["epoch"], 60)
            yield client, processes
    finally:
        processes.end()
