"""One record that cannot be read: whoever reads the others names it and goes on."""

from __future__ import annotations

import asyncio
import zlib

import orjson
import pytest
from sqlalchemy import delete, select, update
from typer.testing import CliRunner

from agent.cli.main import app
from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.snapshots import split
from agent.ledger.verify import Report, verify
from agent.mind.notifier import EVENTS, Notifier
from agent.mind.projection import project
from agent.model.codec import digest, encode
from agent.model.plans import Decision
from agent.model.records import Decided, Ended, Entry, FlowRun, Placed
from agent.planner.plan import plan
from agent.report.decisions import newest
from agent.report.rules import did
from agent.report.run import report
from tests.values import group, pool, snapshot, state

BAD = 3


def poison_answer(ledger, db):
    """What a malformed answer once left behind: a name that is an object."""
    _change_decision(ledger, db, lambda body: {**body, "approved_by": {"a": 1}})


def poison_shape(ledger, db):
    _change_decision(ledger, db, lambda body: [body])


def poison_part(ledger, db):
    """The body of the decision is gone."""
    body = db.execute(select(t.decision.c.body).where(t.decision.c.id == BAD)).scalar_one()
    db.execute(delete(t.part).where(t.part.c.digest == body))


def poison_bytes(ledger, db):
    body = db.execute(select(t.decision.c.body).where(t.decision.c.id == BAD)).scalar_one()
    db.execute(update(t.part).where(t.part.c.digest == body).values(body=b"\x00 no zlib"))


def poison_record(ledger, db):
    """The record itself is damaged."""
    db.execute(update(t.record).where(t.record.c.seq == BAD).values(body=b"\x00 no zlib"))


def poison_body(ledger, db):
    db.execute(update(t.record).where(t.record.c.seq == BAD).values(body=zlib.compress(b"[1]")))


def poison_snapshot(ledger, db):
    """A part of the snapshot has text where a number stands."""
    record = db.execute(select(t.record.c.body).where(t.record.c.seq == BAD)).scalar_one()
    parts = orjson.loads(zlib.decompress(record))["parts"]["set"]
    part = next(bytes.fromhex(digest) for name, digest in parts.items() if name.startswith("group/"))
    body = orjson.loads(zlib.decompress(db.execute(select(t.part.c.body).where(t.part.c.digest == part)).scalar_one()))
    bad = zlib.compress(orjson.dumps({**body, "preemptions": "x"}))
    db.execute(update(t.part).where(t.part.c.digest == part).values(body=bad))


def _change_decision(ledger, db, change):
    digest = db.execute(select(t.decision.c.body).where(t.decision.c.id == BAD)).scalar_one()
    body = orjson.loads(
        zlib.decompress(db.execute(select(t.part.c.body).where(t.part.c.digest == digest)).scalar_one())
    )
    db.execute(update(t.part).where(t.part.c.digest == digest).values(body=zlib.compress(orjson.dumps(change(body)))))


DECISIONS = [poison_answer, poison_shape, poison_part, poison_bytes]
RECORDS = [poison_record, poison_body]


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """Five rounds with plans, each of a run of its own."""
    monkeypatch.setenv("ORC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db", "local")
    made.acquire_lease("me", 1, 10)
    for number in range(1, 6):
        name = f"task{number}"
        seen = snapshot(state(pool(), 1), groups=(group(id=name, name=name, task_class=name),))
        planned = plan(seen)
        head, parts = split(seen)
        decision = Decision(
            group=name,
            task_class=name,
            name=name,
            root_run=f"run{number}",
            flow_run=f"run{number}",
            verb="bind",
            pool="on-demand",
            reason=f"why {name}",
            options=(),
        )
        made.append(
            Entry(
                kind="round", at_ms=number * 1000, says={"head": head, "plan": digest(encode(planned))}, parts=parts,
                runs=[FlowRun(no=number, flow_run=f"run{number}", root_run=f"run{number}", flow="f")],
                decisions=[Decided(id=number, run=number, decision=decision)],
                placements=[Placed(id=number, decision=number, key=f"{name}-key")],
                outcomes=[Ended(placement=number, result="done", start_ms=number * 1000, run_ms=10)],
            )
        )  # fmt: skip
    yield made
    made.close()


def poisoned(ledger, poison):
    with ledger.database.writing() as db:
        poison(ledger, db)


def orc(*arguments):
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


def test_the_ledger_of_these_tests_is_whole(ledger):
    done = Report()
    assert list(verify(ledger, done, replay=True)) == []
    assert (done.records, done.replayed) == (5, 5)


@pytest.mark.parametrize("poison", DECISIONS)
def test_commands_that_show_decisions_name_it_and_show_the_others(ledger, poison):
    poisoned(ledger, poison)
    for command in (("decisions",), ("explain", "run"), ("explain", "task")):
        code, out = orc(*command)
        assert code == 0
        assert "why task2" in out
        assert "why task4" in out
        assert command == ("decisions",) or "decision 3 in record 3 cannot be read: " in out
    assert "why task3" not in orc("decisions")[1]
    (bad,) = [entry for entry in newest(ledger, 9) if entry.decision is None]
    assert bad.id == BAD
    assert "cannot be read" in bad.unreadable
    code, out = orc("report", "run3")
    assert code == 0
    assert "task3" in out


@pytest.mark.parametrize("poison", DECISIONS)
def test_reports_leave_it_out_or_say_so(ledger, poison, caplog):
    poisoned(ledger, poison)
    made = report(ledger, "run3", 10_000)
    assert made is not None
    assert (made.rows[0].tasks, "cannot be read" in made.rows[0].reason) == (1, True)
    assert did(ledger, 0, ["a rule"])
    assert "decision 3 cannot be read" in caplog.text


@pytest.mark.parametrize("poison", [poison_record, poison_body, poison_snapshot])
def test_a_verification_names_the_record_and_verifies_the_others(ledger, poison):
    poisoned(ledger, poison)
    done = Report()
    found = list(verify(ledger, done, replay=True))
    assert [fault for fault in found if fault.seq == BAD]
    assert [fault for fault in found if "cannot be" in fault.what]
    assert done.records == 5
    assert done.replayed + done.not_replayed == 4
    code, out = orc("ledger", "verify", "--replay")
    assert code == 1
    assert "record 3" in out
    assert "local: 5 records" in out


@pytest.mark.parametrize("poison", [*DECISIONS, *RECORDS])
def test_the_graph_takes_in_what_can_be_read(ledger, poison, caplog):
    poisoned(ledger, poison)
    made = project(ledger, ledger.records())
    assert {p["key"] for p in made.nodes["OrcTask"].values()} == {f"task{n}-key" for n in range(1, 6)}
    assert {id for id in made.nodes["OrcDecision"]} == {f"local/{n}" for n in range(1, 6)}
    assert "record 3 of local" in caplog.text


@pytest.mark.parametrize("poison", [*DECISIONS, *RECORDS])
def test_prefect_is_told_of_every_other_record(ledger, poison):
    poisoned(ledger, poison)
    ledger.cursors.advance(EVENTS, 5)
    notifier = Notifier(ledger)
    notifier.remember()
    assert {"run1", "run2", "run4", "run5"} <= set(notifier.news)


def test_a_record_whose_events_cannot_be_made_is_passed_over(ledger, caplog):
    with ledger.database.writing() as db:
        db.execute(update(t.outcome).where(t.outcome.c.placement == BAD).values(result=99))
    ledger.cursors.advance(EVENTS, 5)
    notifier = Notifier(ledger)
    notifier.remember()
    assert set(notifier.news) == {"run1", "run2", "run4", "run5"}
    assert "record 3 of local cannot be told" in caplog.text


def test_artifacts_that_cannot_be_made_are_passed_over(ledger, caplog):
    with ledger.database.writing() as db:
        db.execute(update(t.outcome).where(t.outcome.c.placement == BAD).values(result=99))
    asyncio.run(Notifier(ledger).write_report(None, "run3"))
    assert "flow run run3 cannot be reported" in caplog.text
