"""Flows on a real ORC: governed, explained, recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import httpx
import psutil
import pytest

from agent.report.run import report
from harness.processes import ROOT
from harness.wait import until

pytestmark = pytest.mark.real


def test_a_flow_is_governed_by_one_changed_line(orc, tmp_path):
    # a worker on demand that idles after other tests would be taken: it costs nothing more
    until(lambda: not orc.workers("on-demand"), 60)
    assert orc.run("many", folder=str(tmp_path), count=4, seconds=0.2) == 6
    run = orc.flow_runs("many")[0]
    assert run["state"]["type"] == "COMPLETED"
    orc.settled()
    made = report(orc.ledger(), run["id"], 0)
    assert {(row.name, row.tasks) for row in made.rows} == {("work", 4), ("add", 1)}
    assert [row.pool for row in made.rows if row.name == "work"] == ["spot"]
    assert made.usd_micros > 0
    assert made.on_demand_usd_micros > 0


def test_what_is_not_interruptible_runs_on_demand(orc, tmp_path):
    assert orc.run("many", folder=str(tmp_path), count=1, seconds=0.1, kind="safe") == 0
    orc.settled()
    made = report(orc.ledger(), orc.flow_runs("many")[0]["id"], 0)
    assert {row.name: row.pool for row in made.rows}["safe"] == "on-demand"


def test_every_decision_can_be_read_aloud(orc, tmp_path):
    orc.run("many", folder=str(tmp_path), count=1, seconds=0.1)
    run = orc.flow_runs("many")[0]["id"]
    said = orc.cli("explain", run)
    assert "work: bound to" in said
    assert "no model was asked" in said
    assert "on-demand (on-demand): " in said
    task_run = orc.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})[0]["id"]
    assert "placement" in orc.cli("explain", task_run)
    assert "work" in orc.cli("decisions")
    assert "all on on-demand" in orc.cli("report", run)
    assert "spot" in orc.cli("status")
    assert "has ended" in orc.cli("why", run)


def test_the_mind_shows_decisions_in_prefect(orc, tmp_path):
    orc.run("many", folder=str(tmp_path), count=2, seconds=0.1)
    run = orc.flow_runs("many")[0]["id"]
    found = until(
        lambda: (
            {a["type"]: a for a in orc.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})}.keys()
            >= {"table", "markdown"}
        ),
        30,
        0.5,
    )
    assert found
    events = until(
        lambda: orc.api(
            "/events/filter",
            {"filter": {"event": {"prefix": ["orc.task.bound"]}, "related": {"id": [f"prefect.flow-run.{run}"]}}},
        )["events"],
        20,
        0.5,
    )
    assert {event["payload"]["pool"] for event in events} <= {"spot", "on-demand"}


def test_a_task_that_waits_for_tasks_of_its_own(orc):
    assert orc.run("nested") == 3


def test_a_failed_task_fails_its_flow_and_is_on_record(orc):
    process = orc.flow("failing")
    _, err = process.communicate(timeout=60)
    assert process.returncode
    assert "on purpose" in err
    orc.settled()
    with orc.ledger().reading() as db:
        from agent.ledger import schema as t

        last = db.execute(t.outcome.select().order_by(t.outcome.c.placement.desc())).first()
    assert t.RESULTS[last.result] == "failed"


def test_a_need_nobody_meets_fails_at_once_with_the_nearest_pool(orc, tmp_path):
    process = orc.flow("needing", folder=str(tmp_path), said={"memory": "64 GiB"})
    _, err = process.communicate(timeout=60)
    assert process.returncode
    assert "nearest is on-demand (1 cpu, 1 GiB): needs 64 GiB and its workers have 1 GiB" in err
    run = orc.flow_runs("needing")[0]
    (task_run,) = orc.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    assert task_run["state"]["type"] == "FAILED"
    assert "64 GiB" in task_run["state"]["message"]


def test_a_wrong_need_is_refused_in_the_flow(orc, tmp_path):
    process = orc.flow("needing", folder=str(tmp_path), said={"memry": "64 GiB"})
    _, err = process.communicate(timeout=60)
    assert "unknown need 'memry'" in err


def hold_of(orc, name):
    """The hold of a task by that name."""
    return until(
        lambda: next(
            (h for h in orc.governor("/why")["holds"] if h["task"] == name and h["reason"] == "approval"), None
        ),
        60,
        0.3,
    )


def _epoch(orc):
    try:
        return orc.governor("/status")["epoch"]
    except (OSError, ValueError, httpx.HTTPError):
        return 0


def test_an_escalated_task_is_held_until_a_person_approves(orc, tmp_path):
    process = orc.flow("asking", folder=str(tmp_path))
    hold = hold_of(orc, "safe")
    assert "ask-for-labelled" in hold["why"]
    assert "approval" in orc.cli("why")
    assert "no task waits for approval" in orc.cli("approve", "0123456789ab", "--by", "ada", rc=2)
    assert "id: String should" in orc.cli("approve", "zzzz", "--by", "ada", rc=2)
    assert process.poll() is None
    epoch = orc.governor("/status")["epoch"]
    os.kill(orc.services()["governor"], signal.SIGKILL)  # a hold, and what is said of it, outlive the governor
    until(lambda: _epoch(orc) > epoch, 20)
    hold_of(orc, "safe")
    assert "approved: 1 of safe" in orc.cli("approve", hold["id"], "--by", "ada")
    assert orc.result(process) == 0
    assert "approved by ada" in orc.cli("explain", orc.flow_runs("asking")[0]["id"])


def test_a_rejected_task_fails_with_the_name(orc, tmp_path):
    process = orc.flow("asking", folder=str(tmp_path))
    orc.cli("reject", hold_of(orc, "safe")["id"], "--by", "ada")
    _, err = process.communicate(timeout=60)
    assert "rejected by ada" in err
    assert not list(tmp_path.glob("*.ran"))


def test_a_person_may_choose_the_pool_of_what_is_held(orc, tmp_path):
    (orc.folder / "hold").mkdir(exist_ok=True)
    blockers = orc.flow("many", folder=str(tmp_path), count=2, seconds=6, kind="safe")
    until(lambda: len(list(tmp_path.glob("safe*.ran"))) == 2, 60)
    process = orc.flow("needing", folder=str(tmp_path), said={"interruptible": True, "labels": {"ask": "yes"}})
    hold = hold_of(orc, "safe")
    assert "there is no pool 'moon'" in orc.cli("override", hold["id"], "--pool", "moon", "--by", "ada", rc=2)
    orc.cli("override", hold["id"], "--pool", "on-demand", "--by", "ada")
    orc.cli("approve", hold["id"], "--by", "ada")
    assert orc.result(process) == 0
    assert "a person chose it" in orc.cli("explain", orc.flow_runs("needing")[0]["id"])
    orc.result(blockers)


def test_two_flows_on_one_dollar_never_reserve_more_than_one_dollar(orc, tmp_path):
    # a task reserves an hour on spot: $0.10 and its start-up, so a dollar covers nine at a time
    flows = [orc.flow("spending", folder=str(tmp_path / str(n)), count=8) for n in range(2)]
    for n in range(2):
        (tmp_path / str(n)).mkdir()
    ledger, most = orc.ledger(), 0
    while any(process.poll() is None for process in flows):
        budget = ledger.budgets()["dollar"]
        most = max(most, budget.reserved_usd_micros + budget.spent_usd_micros)
    assert [orc.result(process) for process in flows] == [28, 28]
    assert 0 < most <= 1_000_000
    orc.settled()
    budget = ledger.budgets()["dollar"]
    assert budget.reserved_usd_micros == 0
    assert 0 < budget.spent_usd_micros < 1_000_000


def test_a_deadline_is_handed_down_from_the_root_run(orc, tmp_path):
    assert orc.run("above", folder=str(tmp_path)) == 1
    root = orc.flow_runs("above")[0]
    child = next(run for run in orc.flow_runs("many") if run["parent_task_run_id"])
    assert root["labels"]["orc.deadline_ms"] == child["labels"]["orc.deadline_ms"]
    assert child["labels"]["orc.root"] == root["id"]
    assert f'"root_run":"{root["id"]}"' in orc.ledger().part(_decision_of(orc, child["id"])).decode()


def _decision_of(orc, flow_run):
    from sqlalchemy import select

    from agent.ledger import schema as t

    with orc.ledger().reading() as db:
        return db.execute(
            select(t.decision.c.body).join(t.run, t.run.c.no == t.decision.c.run).where(t.run.c.flow_run == flow_run)
        ).scalar()


def test_mode_off_is_the_plain_runner_at_once(orc, tmp_path):
    orc.env["ORC_MODE"] = "off"
    try:
        before = len(orc.ledger().records())
        assert orc.run("many", folder=str(tmp_path), count=2, seconds=0.1) == 1
        assert not report(orc.ledger(), orc.flow_runs("many")[0]["id"], 0)
        assert before <= len(orc.ledger().records())
    finally:
        del orc.env["ORC_MODE"]


def test_shadow_records_the_plan_and_holds_nothing(orc, tmp_path):
    assert orc.run("many", folder=str(tmp_path), count=1, seconds=0.1) == 0  # a worker is there
    orc.env["ORC_MODE"] = "shadow"
    try:
        assert orc.run("many", folder=str(tmp_path), count=2, seconds=0.1) == 1
    finally:
        del orc.env["ORC_MODE"]
    run = orc.flow_runs("many")[0]["id"]
    orc.settled()
    records = [r for r in orc.ledger().records(limit=10_000) if r.mode == "shadow"]
    assert records
    assert sum(row.tasks for row in report(orc.ledger(), run, 0).rows) == 3
    assert "bound to" in orc.cli("explain", run)


def test_a_second_orc_up_is_refused(orc):
    assert "ORC is already up" in orc.cli("up", rc=2)


def test_a_second_governor_waits_for_the_first(orc):
    before = orc.governor("/status")["epoch"]
    second = subprocess.Popen(
        [sys.executable, "-m", "agent.governor.process", orc.env["ORC_SCHEDULER"]],
        env={
            **orc.env,
            "ORC_HOME": str(orc.folder / "second"),
            "ORC_LEDGER_URL": f"sqlite:///{orc.home}/ledger.db",
            "ORC_CHAIN": "local",
        },
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    (orc.folder / "second").mkdir(exist_ok=True)
    lines = iter(second.stderr.readline, "")
    try:
        assert any("another governor holds" in line for line in lines)
        until(lambda: (orc.folder / "second/governor.json").exists())
        ports = [
            at.laddr.port for at in psutil.Process(second.pid).net_connections() if at.status == psutil.CONN_LISTEN
        ]
        assert ports == []
        said = orc.cli("status", rc=2, ORC_HOME=str(orc.folder / "second"), ORC_CHAIN="local")
        assert "stands by: another one governs local" in said
    finally:
        second.kill()
        second.wait()
    assert "the governor is not running" in orc.cli("status", rc=2, ORC_HOME=str(orc.folder / "second"))
    assert orc.governor("/status")["epoch"] == before
    assert "epoch" in orc.cli("status")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ORC_POOLS", "none.yaml", "none.yaml cannot be read"),
        ("ORC_RULES", "none.yaml", "none.yaml: cannot be read"),
        ("ORC_MODE", "maybe", "ORC_MODE='maybe'"),
    ],
)
def test_up_refuses_a_wrong_setting_before_anything_starts(orc, tmp_path, name, value, says):
    assert says in orc.cli("up", rc=2, ORC_HOME=str(tmp_path / "other"), **{name: value})
    assert not (tmp_path / "other").exists()


def test_up_refuses_a_port_in_use_by_name(orc, tmp_path):
    port = orc.env["PREFECT_API_URL"].split(":")[2].split("/")[0]
    said = orc.cli("up", rc=2, ORC_HOME=str(tmp_path / "other"), ORC_PREFECT_PORT=port)
    assert f"port {port} (ORC_PREFECT_PORT) is in use by process" in said


def test_the_ledger_is_whole_and_every_plan_comes_out_again(orc):
    orc.settled()
    assert orc.faults() == []
    assert "0 faults" in orc.cli("ledger", "verify", "--replay")
    assert "rules, digest" in orc.cli("rules", "lint")
    assert "on-demand" in orc.cli("pools")
