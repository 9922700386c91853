"""A real Prefect server and a real Dask cluster of two worker processes for the tests of the runner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.cluster import scheduler, worker
from harness.processes import Processes, free_port
from harness.wait import until


class Server:
    """A Prefect server that can be pulled out and put back."""

    def __init__(self, processes: Processes, home: Path) -> None:
        self.processes, self.home, self.port = processes, home, free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.started: Any = None

    def start(self) -> None:
        self.started = self.processes.start(
            "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port), name="prefect",
            env={"PREFECT_HOME": str(self.home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"},
        )  # fmt: skip
        until(self.answers, 150, 0.3)

    def stop(self) -> None:
        self.started.kill()
        self.started.wait()

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, path: str, body: dict[str, Any]) -> Any:
        return httpx.post(self.url + path, json=body, timeout=30).json()

    def runs(self, flow_run: Any) -> list[dict[str, Any]]:
        """Task runs of a flow run."""
        found: list[dict[str, Any]] = self.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [str(flow_run)]}}})
        return found

    def terminal(self, flow_run: Any, count: int) -> list[dict[str, Any]]:
        """The same, once so many have ended."""

        def ended() -> list[dict[str, Any]] | None:
            found = self.runs(flow_run)
            done = [r for r in found if r["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")]
            return found if len(done) >= count else None

        return until(ended, 60, 0.3)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def prefect(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Started once; the settings of this process point to it."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    home = tmp_path_factory.mktemp("prefect")
    server = Server(processes, home)
    server.start()
    os.environ["PREFECT_API_URL"] = server.url
    values = {PREFECT_API_URL: server.url, PREFECT_HOME: home, PREFECT_LOCAL_STORAGE_PATH: home / "storage"}
    with temporary_settings(values):
        yield server
    del os.environ["PREFECT_API_URL"]


@pytest.fixture(scope="session")
def dask_address(processes: Processes, prefect: Server) -> str:
    """A plain scheduler and two workers of one thread."""
    address = scheduler(processes, "runner-scheduler")
    env = {"PREFECT_API_URL": prefect.url, "ORC_GOVERNED": "optional"}
    for number in range(2):
        name, more = f"worker-{number}", ("--no-nanny", "--preload", "agent.worker.preload")
        worker(processes, address, name, *more, log=f"runner-{name}", env=env)
    from distributed import Client

    with Client(address, timeout=60) as client:
        client.wait_for_workers(2, timeout=120)
    return address
