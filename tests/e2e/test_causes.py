"""A task that comes back is decided anew by what brought it back: memory that ran out, a worker that is going."""

from __future__ import annotations

import os
import signal
import time

import pytest
from sqlalchemy import select

from agent.ledger import schema as t
from agent.model import codec
from harness.wait import until
from tests.e2e.test_plugs import one_outcome_each, started

pytestmark = pytest.mark.real


def history(orc, name):
    """What became of each placement of a task, and the reason of the decision behind it, oldest first."""
    orc.settled()
    ledger = orc.ledger()
    p, o, d = t.placement, t.outcome, t.decision
    joined = p.join(o, o.c.placement == p.c.id).join(d, d.c.id == p.c.decision)
    with ledger.reading() as db:
        rows = db.execute(select(o.c.result, d.c.body, p.c.key).select_from(joined).order_by(p.c.id)).all()
    bodies = [(t.RESULTS[row.result], codec.decode(dict, ledger.part(row.body)), row.key) for row in rows]
    return [(result, body["reason"]) for result, body, key in bodies if key.startswith(name) or body["name"] == name]


@pytest.mark.parametrize("hard", [False, True], ids=["by an error", "by its worker's death"])
def test_a_task_that_ran_out_of_memory_is_given_more_and_its_class_from_the_start(orc, tmp_path, hard):
    before = len(history(orc, "hungry"))
    if hard:
        # the class has learned from the case before; a need that is said anew is believed until it proves too small
        assert before
    assert orc.run("eating", folder=str(tmp_path), hard=hard) == 1
    told = history(orc, "hungry")[before:]
    assert started(tmp_path) == {"hungry": 2}
    assert [result for result, _ in told] == ["out of memory", "done"]
    assert "ran out of" in told[1][1]
    assert "is given" in told[1][1]
    one_outcome_each(orc)


def test_a_worker_that_is_told_to_end_lets_its_task_leave_at_a_checkpoint(orc, tmp_path):
    process = orc.flow("climbing", folder=str(tmp_path), steps=25)
    until(lambda: "step5" in started(tmp_path), 60)
    os.kill(int((tmp_path / "climb.ran").read_text().split()[0]), signal.SIGTERM)
    assert orc.result(process) == 25
    ran = started(tmp_path)
    assert ran.pop("climb") == 2
    assert set(ran.values()) == {1}, "a step was done twice"
    told = history(orc, "climb")
    assert [result for result, _ in told] == ["moved", "done"]
    assert "goes on from a checkpoint" in told[1][1]
    one_outcome_each(orc)


def test_a_task_that_is_too_slow_where_it_runs_is_moved_by_cost_and_goes_on_from_its_checkpoint(orc, tmp_path):
    assert orc.run("stalling", folder=str(tmp_path)) == 3
    ran = started(tmp_path)
    assert ran.pop("stall") == 2
    assert set(ran.values()) == {1}, "a step was done twice"
    told = history(orc, "stall")
    assert [result for result, _ in told] == ["moved", "done"]
    assert "goes on from a checkpoint" in told[1][1]
    ledger = orc.ledger()
    with ledger.reading() as db:
        said = [codec.decode(dict, ledger.part(body)) for (body,) in db.execute(select(t.decision.c.body))]
    slow = [each["reason"] for each in said if each["verb"] in ("move", "leave") and each["name"] == "stall"]
    assert slow, "nobody looked at it"
    assert "too slow: it has run for" in slow[-1]
    assert "; moved: $" in slow[-1]
    one_outcome_each(orc)


def test_a_task_on_demand_goes_back_to_spot_when_that_has_room_and_the_rest_is_worth_the_move(orc, tmp_path):
    process = orc.flow("returning", folder=str(tmp_path), steps=300)
    until(lambda: "step3" in started(tmp_path), 120)
    (tmp_path / "go").touch()
    assert orc.result(process, 180) == 300
    ran = started(tmp_path)
    assert ran.pop("ascend") == 2
    assert set(ran.values()) == {1}, "a step was done twice"
    told = history(orc, "ascend")
    assert [result for result, _ in told] == ["moved", "done"]
    ledger = orc.ledger()
    with ledger.reading() as db:
        said = [codec.decode(dict, ledger.part(body)) for (body,) in db.execute(select(t.decision.c.body))]
    back = [each for each in said if each["verb"] == "move" and each["name"] == "ascend"]
    assert [each["pool"] for each in back] == ["spot"]
    assert "spot again: the rest is" in back[0]["reason"]
    assert "cheaper there ($" in back[0]["reason"]
    pools = [each["pool"] for each in said if each["verb"] == "bind" and each["name"] == "ascend"]
    assert pools == ["on-demand", "spot"]
    one_outcome_each(orc)


def test_the_size_of_chunks_is_in_the_decision_and_learned(orc):
    assert orc.run("crumbs", count=200) == 19_900
    first = history(orc, "tiny")
    assert {result for result, _ in first} == {"done"}
    assert "nothing is known of the class" in first[0][1]
    assert any("measured on 16" in reason for _, reason in first)
    time.sleep(2)  # the governor tells the extension once a second
    assert orc.run("crumbs", count=200) == 19_900
    second = history(orc, "tiny")[len(first) :]
    assert "(learned)" in second[0][1]
    one_outcome_each(orc)


def test_a_task_that_is_held_says_why_in_its_pending_state(orc, tmp_path):
    process = orc.flow("asking", folder=str(tmp_path))
    until(lambda: any(h["reason"] == "approval" for h in orc.governor("/why")["holds"]), 60)

    def said():
        (run,) = orc.flow_runs("asking")[:1]
        found = orc.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
        return [
            r["state"]["message"]
            for r in found
            if (r["state"] or {}).get("type") == "PENDING" and r["state"]["message"]
        ]

    (message,) = until(said, 60, 0.5)
    assert message.startswith("held for approval: ")
    assert "orc approve" in message
    (hold,) = [h for h in orc.governor("/why")["holds"] if h["reason"] == "approval"]
    orc.cli("approve", hold["id"], "--by", "ada")
    assert orc.result(process) == 0
    run = orc.flow_runs("asking")[0]
    runs = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    until(lambda: {r["state_type"] for r in orc.api("/task_runs/filter", runs)} == {"COMPLETED"}, 30, 0.3)
