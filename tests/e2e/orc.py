"""An ORC of the tests: their pools and rules, and the flows of `tests.e2e.flows`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness.instance import Instance, two_pools
from harness.processes import ROOT

POOLS = two_pools("30s") + """budgets:
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


class Orc(Instance):
    """An `orc up` with rules that can be edited."""

    def __init__(self, folder: Path, pools: str = POOLS, **env: str) -> None:
        super().__init__(folder, pools, folder / "rules", **env)
        (folder / "rules").mkdir()
        (folder / "rules/default.yaml").write_text((ROOT / "rules/default.yaml").read_text())
        (folder / "rules/tests.yaml").write_text(RULES)

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
        """What a flow returns."""
        return self.result(self.flow(name, **arguments))

    def flow_runs(self, name: str) -> list[dict[str, Any]]:
        """Flow runs of a flow, newest first."""
        found: list[dict[str, Any]] = self.api(
            "/flow_runs/filter", {"flows": {"name": {"any_": [name]}}, "sort": "START_TIME_DESC"}
        )
        return found
