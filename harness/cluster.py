"""A Dask scheduler, its workers and the governor as processes, all ended by their process ids."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

from distributed import Client

from harness.processes import ROOT, Processes, free_port
from harness.wait import until

#: what a scheduler or worker listens on; its HTTP server is there in spite of --no-dashboard, and must be told too
LOCAL = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0", "--no-dashboard")
#: arguments of a scheduler that ORC governs
GOVERNED = ("--preload", "agent.scheduler.preload")


def scheduler(
    processes: Processes, name: str, *more: str, port: int | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Start a Dask scheduler; its address."""
    port = port or free_port()
    processes.start("distributed.cli.dask_scheduler", "--port", str(port), *LOCAL, *more, name=name, env=env)
    return f"tcp://127.0.0.1:{port}"


def worker(
    processes: Processes, address: str, name: str, *more: str, log: str = "", env: Mapping[str, str] | None = None
) -> Popen[bytes]:
    """Start a Dask worker of one thread, unless `more` says otherwise.

    Args:
        log: name of its log, where another worker has the same name.
    """
    arguments = (address, "--name", name, "--nthreads", "1", *LOCAL, *more)
    return processes.start("distributed.cli.dask_worker", *arguments, name=log or name, env=env)


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


@contextmanager
def up(
    folder: Path, env: Mapping[str, str], workers: Mapping[str, Sequence[str]]
) -> Iterator[tuple[Client, Processes]]:
    """A scheduler with the extension, workers (name → their arguments) and the governor, which follows it already."""
    processes = Processes(folder, env)
    try:
        address = scheduler(processes, "scheduler", *GOVERNED)
        for name, more in workers.items():
            worker(processes, address, name, *more)
        with Client(address, timeout=60) as client:
            client.wait_for_workers(len(workers))
            processes.start("agent.governor.process", address, name="governor")
            until(lambda: client.sync(client.scheduler.orc_state)["epoch"], 60, 0.25)
            yield client, processes
    finally:
        processes.end()
