"""Pull each plug with SIGKILL: work goes on or resumes, nothing is lost, and the next start explains what it found."""

from __future__ import annotations

import json
import os
import signal
import time

import httpx
import psutil
import pytest
from sqlalchemy import func, select

from agent.ledger import schema as t
from agent.report.run import report
from harness.wait import until
from tests.e2e.orc import POOLS, Orc

pytestmark = pytest.mark.real


def started(folder):
    """Bodies that began, by name."""
    return {file.stem: len(file.read_text().split()) for file in folder.glob("*.ran")}


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def one_outcome_each(orc):
    """Every placement has exactly one outcome (the key is unique), none is open."""
    orc.settled()
    with orc.ledger().reading() as db:
        placed = db.execute(select(func.count()).select_from(t.placement)).scalar()
        ended = db.execute(select(func.count()).select_from(t.outcome)).scalar()
    assert placed == ended
    assert orc.faults() == []


def test_a_killed_worker(orc, tmp_path):
    process = orc.flow("many", folder=str(tmp_path), count=4, seconds=2.0)
    until(lambda: started(tmp_path), 60)
    time.sleep(0.3)
    kill(int(next(iter(tmp_path.glob("*.ran"))).read_text().split()[0]))
    assert orc.result(process) == 6
    assert max(started(tmp_path).values()) == 2  # what ran there ran again
    orc.settled()
    made = report(orc.ledger(), orc.flow_runs("many")[0]["id"], 0)
    assert made.moves
    assert made.moves[0].to_pool is not None
    one_outcome_each(orc)


def test_a_killed_governor_is_back_within_ten_seconds_with_nothing_lost(orc, tmp_path):
    process = orc.flow("many", folder=str(tmp_path), count=8, seconds=1.0)
    until(lambda: len(started(tmp_path)) >= 2, 60)
    before, pid = orc.governor("/status")["epoch"], orc.services()["governor"]
    at = kill(pid)
    until(lambda: _epoch(orc) > before, 20)
    assert time.monotonic() - at < 10
    assert orc.result(process) == 28
    assert set(started(tmp_path).values()) == {1}  # what ran went on, nothing ran twice
    one_outcome_each(orc)


def _epoch(orc):
    try:
        return orc.governor("/status")["epoch"]
    except (OSError, KeyError, json.JSONDecodeError, httpx.HTTPError):
        return 0


def test_a_killed_mind_catches_up(orc, tmp_path):
    until(lambda: psutil.pid_exists(orc.services()["mind"]))
    mind = psutil.Process(orc.services()["mind"])
    mind.suspend()
    assert orc.run("many", folder=str(tmp_path), count=2, seconds=0.1) == 1  # placement goes on without it
    run = orc.flow_runs("many")[0]["id"]
    wanted = {"artifacts": {"flow_run_id": {"any_": [run]}, "type": {"any_": ["table", "markdown"]}}}
    assert orc.api("/artifacts/filter", wanted) == []
    mind.kill()
    found = until(lambda: len(orc.api("/artifacts/filter", wanted)) == 2, 40, 0.5)
    assert found


def test_a_killed_flow_process_leaves_no_task_behind(orc, tmp_path):
    process = orc.flow("many", folder=str(tmp_path), count=6, seconds=3.0)
    until(lambda: started(tmp_path), 60)
    kill(process.pid)
    process.wait()
    until(lambda: not orc.governor("/why")["holds"] and orc.governor("/status")["running"] == 0, 60, 0.5)
    assert len(started(tmp_path)) < 6
    one_outcome_each(orc)


def test_a_killed_scheduler_gives_its_task_runs_to_the_new_one_and_nothing_stored_runs_again(tmp_path_factory):
    orc = Orc(tmp_path_factory.mktemp("killed"), POOLS.replace("workers: {max: 2}", "workers: {max: 1}"))
    folder = tmp_path_factory.mktemp("marks")
    try:
        orc.up()
        process = orc.flow("many", folder=str(folder), count=4, seconds=1.5)
        until(lambda: len(started(folder)) == 3, 90)
        at = kill(orc.services()["dask-scheduler"])
        # a new scheduler at the same address, a new governor: the same task runs go on
        until(lambda: sum(started(folder).values()) > 3, 60)
        assert time.monotonic() - at < 60
        assert orc.result(process, 120) == 6
        assert started(folder)["0"] == started(folder)["1"] == 1
        run = orc.flow_runs("many")[0]
        assert run["state"]["type"] == "COMPLETED"
        runs = {"flow_runs": {"id": {"any_": [run["id"]]}}}
        until(lambda: {r["state_type"] for r in orc.api("/task_runs/filter", runs)} == {"COMPLETED"}, 30, 0.3)
        assert len(orc.api("/task_runs/filter", runs)) == 5
        until(lambda: not orc.ledger().open_placements(), 30, 0.3)
        assert orc.faults() == []
    finally:
        orc.cli("down", rc=None)
    assert orc.left() == []


def test_without_stored_results_a_killed_scheduler_crashes_the_flow_with_the_cause(tmp_path_factory):
    orc = Orc(tmp_path_factory.mktemp("unkept"), POOLS.replace("workers: {max: 2}", "workers: {max: 1}"))
    folder = tmp_path_factory.mktemp("marks")
    try:
        orc.up()
        orc.env["PREFECT_RESULTS_PERSIST_BY_DEFAULT"] = "false"
        process = orc.flow("many", folder=str(folder), count=4, seconds=1.5, kind="safe")
        until(lambda: started(folder), 90)
        kill(orc.services()["dask-scheduler"])
        _, err = process.communicate(timeout=90)
        assert process.returncode
        assert "is gone" in err
        run = orc.flow_runs("many")[0]
        assert (run["state"]["type"], "is gone" in run["state"]["message"]) == ("CRASHED", True)
    finally:
        orc.cli("down", rc=None)
    assert orc.left() == []


def test_after_a_crash_of_everything_up_recovers_by_itself(tmp_path_factory):
    orc = Orc(tmp_path_factory.mktemp("crashed"))
    folder = tmp_path_factory.mktemp("marks")
    try:
        orc.up()
        process = orc.flow("many", folder=str(folder), count=3, seconds=5.0)
        until(lambda: started(folder), 60)
        supervisor = orc.supervisor()
        kill(supervisor)
        kill(orc.services()["governor"])
        process.kill()
        process.wait()
        said = orc.cli("up")
        assert "that a crash left behind" in said
        orc.reach()
        assert orc.run("many", folder=str(folder), count=3, seconds=0.1) == 3
        one_outcome_each(orc)
        start = [r for r in orc.ledger().records(limit=10_000) if r.kind == "start"][-1]
        assert start.body["closed"] >= 1
    finally:
        orc.cli("down", rc=None)
    assert orc.left() == []
    assert "nothing was up" in orc.cli("down")
