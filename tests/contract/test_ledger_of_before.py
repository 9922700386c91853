"""A ledger that an earlier version wrote opens, is brought up to date, and verifies."""

from __future__ import annotations

import gzip
import sqlite3
from pathlib import Path

import pytest

from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.verify import Report, verify
from agent.planner.plan import VERSION
from agent.report.run import report

#: written by the governor of that commit, see tests/fixtures/made_by_4cc1263.py
BEFORE = Path(__file__).parent.parent / "fixtures/ledger-4cc1263.db.gz"
#: the planner that made its plans
PLANNER = "7"


@pytest.fixture
def url(tmp_path):
    (tmp_path / "ledger.db").write_bytes(gzip.decompress(BEFORE.read_bytes()))
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def ledger(url):
    opened = Ledger(url, "before")
    yield opened
    opened.close()


def test_a_ledger_of_before_opens_and_verifies(ledger):
    done = Report()
    assert list(verify(ledger, done)) == []
    assert done.records == 272


def test_replay_of_a_ledger_of_before_counts_the_plans_of_another_planner_and_does_not_fail(ledger):
    done = Report()
    assert list(verify(ledger, done, replay=True)) == []
    assert (done.replayed, done.other_version) == ((227, 0) if VERSION == PLANNER else (0, 227))


def test_a_change_in_a_ledger_of_before_is_still_found(ledger):
    with ledger.database.writing() as db:
        db.execute(t.outcome.update().where(t.outcome.c.placement == 1).values(run_ms=7))
    assert [fault.what for fault in verify(ledger, Report())] == [
        "a decision, placement, outcome or run of the record was changed, added or removed"
    ]


def test_a_ledger_of_before_is_taken_over_and_goes_on(url, ledger):
    assert ledger.acquire_lease("third", 2_000_000_000_000, 10_000) == 3
    assert len(ledger.open_placements()) == 1
    assert ledger.budgets()["team"].spent_usd_micros == 30_443
    assert {ran.ended.result for ran in ledger.executions()} == {
        "done",
        "failed",
        "preempted",
        "out of memory",
        "moved",
    }
    assert report(ledger, "flow-1", 2_000_000_000_000).rows
    assert [(note.seq, note.body["answer"], note.body["by"]) for note in ledger.answers()] == [
        (102, "approve", "ada"),
        (111, "reject", "ada"),
    ]
    assert len(list(ledger.notes(["notice"]))) == 11
    assert [note.body["mib"] for note in ledger.notes(["out_of_memory"])] == [1024]
    assert {lease.cause: lease.end for lease in ledger.leases()} == {
        "1 tasks of score wait": None,
        "ended": "drained",
        "refused: spot has no capacity": "refused",
        "taken away by the market": "interrupted",
    }


def test_the_fixture_is_as_it_was_written(url):
    with sqlite3.connect(url.removeprefix("sqlite:///")) as db:
        (version,) = db.execute("SELECT version FROM orc_version").fetchone()
        kinds = dict(db.execute("SELECT kind, count(*) FROM orc_record GROUP BY kind"))
    db.close()
    assert version == 2
    assert kinds == {"merged": 1, "round": 256, "said": 13, "start": 2}
