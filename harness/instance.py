"""An ORC of its own: `orc up` in a folder of its own, and what is asked of it from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil

from agent.ledger.ledger import Ledger
from agent.ledger.verify import Report, verify
from harness import prefect_api
from harness.processes import ROOT, carrying, command, kill
from harness.wait import until, within


def two_pools(idle: str) -> str:
    """A pools.yaml: two spot and two on-demand workers of one slot, ended when they idle for so long."""
    return f"""pools:
  spot:
    market: spot
    worker: {{cpus: 1, memory: 1 GiB, slots: 1}}
    price: 0.10
    workers: {{max: 2}}
    startup: 4s
    idle: {idle}
    provider: local
  on-demand:
    market: on-demand
    worker: {{cpus: 1, memory: 1 GiB, slots: 1}}
    price: 0.34
    workers: {{max: 2}}
    startup: 4s
    idle: {idle}
    provider: local
"""


class Instance:
    """One `orc up`. `with Instance(folder, pools).up() as orc` ends it in any case."""

    def __init__(self, folder: Path, pools: str, rules: Path | None = None, **env: str) -> None:
        """Write its pools and its environment; nothing is started yet.

        Args:
            pools: content of its pools.yaml.
            rules: a file or folder; by default those that ORC comes with.
            env: further variables of all its processes.
        """
        self.folder, self.home = folder, folder / "orc"
        #: where `orc` is called: it takes the deployments and a .env from there
        self.cwd = ROOT
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pools.yaml").write_text(pools)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ORC_", "PREFECT_", "DASK_"))},
            "ORC_HOME": str(self.home),
            "ORC_POOLS": str(folder / "pools.yaml"),
            "ORC_RULES": str(rules or ROOT / "rules"),
            "PYTHONPATH": str(ROOT),
            **env,
        }

    # ------------------------------------------------------------------ up and down
    def cli(self, *arguments: str, rc: int | None = 0, **env: str) -> str:
        """Run `orc …`; what it printed. Raises AssertionError when it ends with another code than `rc`."""
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli.main", *arguments],
            capture_output=True,
            text=True,
            env={**self.env, "COLUMNS": "300", **env},
            cwd=self.cwd,
            timeout=240,
            check=False,
        )
        said = done.stdout + done.stderr
        if rc is not None and done.returncode != rc:
            raise AssertionError(f"orc {' '.join(arguments)}: {done.returncode}\n{said}")
        return said

    def up(self) -> Self:
        """`orc up`; from then on `env` reaches it. Ended again when it does not come up."""
        try:
            self.cli("up")
            self.reach()
        except BaseException:
            self.end()
            raise
        return self

    def reach(self) -> None:
        """Take over what `orc env` says."""
        for line in self.cli("env").splitlines():
            name, _, value = line.removeprefix("export ").partition("=")
            self.env[name] = value.strip("'")

    def down(self) -> None:
        """`orc down`, which may find nothing to end."""
        self.cli("down", rc=None)

    def end(self) -> list[str]:
        """`orc down`; the processes that were left all the same, which are killed."""
        self.down()
        within(lambda: not self.left(), 10, 0.2)
        left = self.left()
        kill(carrying("ORC_HOME", str(self.home)))
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # ------------------------------------------------------------------ its processes
    def services(self) -> dict[str, int]:
        """Service → process id."""
        pids: dict[str, int] = json.loads((self.home / "services.json").read_text())["processes"]
        return pids

    def supervisor(self) -> int:
        """Its process id."""
        return int(json.loads((self.home / "services.json").read_text())["pid"])

    def workers(self, pool: str = "") -> dict[str, psutil.Process]:
        """Name → process of the workers that the provider has on record and that live."""
        found = {}
        for file in sorted((self.home / "workers").glob("*.json")):
            try:
                said = json.loads(file.read_text())
                process = psutil.Process(said["pid"])
                if abs(process.create_time() - said["created"]) < 1 and pool in ("", said["pool"]):
                    found[file.stem] = process
            except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
                continue
        return found

    def left(self) -> list[str]:
        """Command lines of the processes that still carry this home."""
        return [line for process in carrying("ORC_HOME", str(self.home)) if (line := command(process))]

    # ------------------------------------------------------------------ what it is asked
    def api(self, path: str, body: Mapping[str, Any]) -> Any:
        """POST to its Prefect server."""
        return prefect_api.post(self.env, path, body, timeout=60)

    def governor(self, path: str) -> dict[str, Any]:
        """GET from the governor."""
        said = json.loads((self.home / "governor.json").read_text())
        answer = httpx.get(said["url"] + "/v1" + path, headers={"X-Orc-Token": said["token"]}, timeout=20)
        reply: dict[str, Any] = answer.json()
        return reply

    def ledger(self) -> Ledger:
        """Its ledger."""
        return Ledger(f"sqlite:///{self.home}/ledger.db", "local")

    def settled(self) -> None:
        """Wait until every placement has its outcome."""
        ledger = self.ledger()
        until(lambda: not ledger.open_placements(), 30, 0.3)

    def faults(self) -> list[str]:
        """What is wrong with the ledger, with every plan planned anew."""
        return [f"{fault.seq}: {fault.what}" for fault in verify(self.ledger(), Report(), replay=True)]
