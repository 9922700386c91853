"""The demo's deadline is one that the machine it runs on can keep."""

from __future__ import annotations

import yaml

from agent.model.units import duration_ms
from agent.runner.flow_run import DEADLINE
from deployments import demo, pace
from harness.processes import ROOT


def test_a_machine_that_is_slower_or_busy_gives_the_demo_more_time():
    assert [pace.deadline_seconds(times) for times in (0.4, 1.0, 1.02, 1.5, 3.0)] == [180, 180, 180, 270, 540]


def test_the_slowest_of_the_processes_that_work_at_once_counts():
    work = f"import os; print({pace.REFERENCE} * (1 + os.getppid() * 0))"
    assert pace.slowness(work) == 1.0
    assert 0.05 < pace.slowness() < 1_000


def test_the_run_is_told_the_deadline_and_its_deployment_says_none(monkeypatch):
    asked = []

    class Done:
        returncode, stdout, stderr = 0, "UUID: 1", ""

    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: asked.append(command) or Done)
    assert demo.start(270) == "1"
    assert asked[0][-2:] == ["--tag", f"{DEADLINE}270 s"]
    assert duration_ms("270 s") == 270_000
    # two of them would be in each other's way
    said = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    assert [tag for each in said["deployments"] for tag in each.get("tags", ()) if tag.startswith(DEADLINE)] == []
