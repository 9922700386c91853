"""One real ORC for the session: `orc up` in a temporary home, ended by its process ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from agent.ledger.ledger import Ledger
from agent.ledger.verify import Report, verify
from bench import prefect_api
from tests.conftest import ROOT, until

POOLS = """
pools:
  spot:
    market: spot
    worker: {cpus: 1, memory: 1 GiB, slots: 1}
    price: 0.10
    workers: {max: 2}
    startup: 4s
    idle: 30s
    provider: local
  on-demand:
    market: on-demand
    worker: {cpus: 1, memory: 1 GiB, slots: 1}
    price: 0.34
    workers: {max: 2}
    startup: 4s
    idle: 30s
    provider: local
budgets:
  dollar: {usd: 1, max_runtime: 1 h}
"""
RULES = """
rules:
  - name: ask-for-labelled
    reason: the label says so
    when: {label.ask: "yes"}
    then: {escalate: any}
  - name: spot-for-labelled
    reason: the label says so
    when: {label.on: spot}
    then: {require: {market: spot}}
"""


class Orc:
    """An ORC of its own home."""

    def __init__(self, home: Path, pools: str = POOLS) -> None:
        self.home = home
        (home / "rules").mkdir(parents=True)
        (home / "rules/default.yaml").write_text((ROOT / "rules/default.yaml").read_text())
        (home / "rules/tests.yaml").write_text(RULES)
        (home / "pools.yaml").write_text(pools)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ORC_", "PREFECT_"))},
            "ORC_HOME": str(home / "orc"), "ORC_POOLS": str(home / "pools.yaml"), "ORC_RULES": str(home / "rules"), "PYTHONPATH": str(ROOT),
        }  # fmt: skip

    def cli(self, *arguments: str, rc: int | None = 0, **env: str) -> str:
        """Run `orc …`; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli.main", *arguments],
            capture_output=True,
            text=True,
            env={**self.env, "COLUMNS": "300", **env},
            cwd=ROOT,
            timeout=240,
            check=False,
        )
        assert rc is None or done.returncode == rc, (
            f"orc {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout + done.stderr

    def up(self) -> None:
        self.cli("up")
        self.reach()

    def reach(self) -> None:
        for line in self.cli("env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.env[name] = value.strip("'")

    def flow(self, name: str, **arguments: Any) -> subprocess.Popen[str]:
        """Start a flow of tests.e2e.flows in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.flows", name, json.dumps(arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            cwd=ROOT,
        )

    def result(self, process: subprocess.Popen[str], seconds: float = 90) -> Any:
        """What the flow returned; its error, when it failed."""
        out, err = process.communicate(timeout=seconds)
        assert process.returncode == 0, err[-3000:]
        return json.loads(out.strip().splitlines()[-1])["result"]

    def run(self, name: str, **arguments: Any) -> Any:
        return self.result(self.flow(name, **arguments))

    def api(self, path: str, body: dict[str, Any]) -> Any:
        """POST to the Prefect API."""
        return prefect_api.post(self.env, path, body)

    def flow_runs(self, name: str) -> list[dict[str, Any]]:
        """Flow runs of a flow, newest first."""
        found: list[dict[str, Any]] = self.api(
            "/flow_runs/filter", {"flows": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC"}
        )
        return found

    def face(self, path: str) -> dict[str, Any]:
        """GET from the governor."""
        said = json.loads((self.home / "orc/governor.json").read_text())
        reply: dict[str, Any] = httpx.get(said["url"] + "/v1" + path, headers={"X-Orc-Token": said["token"]}, timeout=20).json()
        return reply

    def services(self) -> dict[str, int]:
        """Service → process id."""
        pids: dict[str, int] = json.loads((self.home / "orc/services.json").read_text())["processes"]
        return pids

    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.home}/orc/ledger.db", "local")

    def faults(self) -> list[str]:
        return [f"{f.seq}: {f.what}" for f in verify(self.ledger(), Report(), replay=True)]

    def settled(self) -> None:
        """Every placement has its outcome."""
        ledger = self.ledger()
        until(lambda: not ledger.open_placements(), 30, 0.3)

    def left(self) -> list[str]:
        """Processes that still carry this home."""
        out = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("ORC_HOME") == self.env["ORC_HOME"] and process.pid != os.getpid():
                    out.append(" ".join(process.cmdline()))
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return out


@pytest.fixture(scope="session")
def orc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orc]:
    """ORC, up."""
    made = Orc(tmp_path_factory.mktemp("orc"))
    try:
        made.up()
        yield made
    finally:
        made.cli("down", rc=None)
        for _ in range(50):
            if not made.left():
                break
            time.sleep(0.2)
        for process in psutil.process_iter():
            try:
                if process.environ().get("ORC_HOME") == made.env["ORC_HOME"]:
                    process.kill()
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
