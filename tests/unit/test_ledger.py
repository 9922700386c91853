"""The ledger: appending, following, fencing, budgets, verification."""

from __future__ import annotations

import zlib

import pytest
from sqlalchemy import delete, insert, update

from agent.errors import FencedError, LedgerError, LedgerNewerError
from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.parts import split
from agent.ledger.records import Decided, Ended, Entry, Lease, Placed, Run
from agent.ledger.rows import BudgetTakenError
from agent.ledger.verify import Report, verify
from agent.model.codec import digest, encode
from agent.planner.plan import plan
from tests.values import group, pool, snapshot, state


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db", "tcp://s")
    made.take("me", 1000, 10_000)
    yield made
    made.close()


def entry(number=1, at=2000, budget=None, reserve=0, **says):
    """A round with one decision, one placement and the plan it came from."""
    shot = snapshot(state(pool(), 1), groups=(group(),), now_ms=at)
    made = plan(shot)
    head, parts = split(shot)
    return Entry(
        kind="round", at_ms=at, says={"head": head, "plan": digest(encode(made)), **says}, parts=parts, runs=[Run(no=number, flow_run=f"f{number}")],
        decisions=[Decided(id=number, run=number, decision=made.decisions[0])],
        placements=[Placed(id=number, decision=number, key=f"k{number}", budget=budget, reserve_usd_micros=reserve)],
    )  # fmt: skip


def faults(ledger, replay=True):
    return [(f.seq, f.what) for f in verify(ledger, Report(), replay)]


def fill(ledger):
    for n in range(1, 5):
        ledger.append(entry(n, at=1000 * n))
    ledger.append(Entry(kind="round", at_ms=9000, outcomes=[Ended(placement=1, result="done", run_ms=10, start_ms=1)]))


def test_what_was_appended_is_followed_in_order_by_a_cursor(ledger):
    fill(ledger)
    assert [r.seq for r in ledger.records(after=ledger.cursor("me"))] == [1, 2, 3, 4, 5]
    ledger.advance("me", 3)
    ledger.advance("me", 4)
    assert [r.seq for r in ledger.records(after=ledger.cursor("me"))] == [5]
    assert ledger.cursor("another") == 0


def test_a_whole_ledger_verifies_and_its_plans_come_out_again(ledger):
    fill(ledger)
    done = Report()
    assert list(verify(ledger, done, replay=True)) == []
    assert (done.records, done.replayed) == (5, 4)


def test_a_changed_record_is_found(ledger):
    fill(ledger)
    with ledger.engine.begin() as db:
        body = zlib.compress(zlib.decompress(ledger_body(db, 2)).replace(b"now", b"eon"))
        db.execute(update(t.record).where(t.record.c.seq == 2).values(body=body))
    assert any(seq == 2 and "changed" in what for seq, what in faults(ledger, replay=False))


def ledger_body(db, seq):
    return db.execute(t.record.select().where(t.record.c.seq == seq)).one().body


def test_a_missing_record_is_found(ledger):
    fill(ledger)
    with ledger.engine.begin() as db:
        db.execute(delete(t.record).where(t.record.c.seq == 3))
    assert (3, "record 3 is missing") in faults(ledger, replay=False)


def test_a_cut_off_end_is_found(ledger):
    fill(ledger)
    with ledger.engine.begin() as db:
        db.execute(delete(t.record).where(t.record.c.seq == 5))
    assert faults(ledger, replay=False) == [(5, "the end is missing: record 5 was acknowledged")]


def test_reordered_records_are_found(ledger):
    fill(ledger)
    with ledger.engine.begin() as db:
        db.execute(update(t.record).where(t.record.c.seq == 2).values(seq=99))
        db.execute(update(t.record).where(t.record.c.seq == 3).values(seq=2))
        db.execute(update(t.record).where(t.record.c.seq == 99).values(seq=3))
    assert {2, 3} <= {seq for seq, _ in faults(ledger, replay=False)}


@pytest.mark.parametrize("what", ["outcome", "placement", "added"])
def test_a_changed_row_is_found(ledger, what):
    fill(ledger)
    with ledger.engine.begin() as db:
        if what == "outcome":
            db.execute(update(t.outcome).values(run_ms=11))
        elif what == "placement":
            db.execute(update(t.placement).where(t.placement.c.id == 2).values(key="other"))
        else:
            db.execute(insert(t.placement).values(chain=ledger.chain, id=77, seq=2, decision=2, key="forged"))
    assert any("was changed, added or removed" in said for _, said in faults(ledger, replay=False))


def test_a_plan_that_was_not_made_from_its_snapshot_is_found(ledger):
    ledger.append(entry(1, plan="0" * 64))
    assert any("not the recorded plan" in what for _, what in faults(ledger))


def test_parts_that_did_not_change_are_stored_once(ledger):
    fill(ledger)
    with ledger.engine.connect() as db:
        kept = len(db.execute(t.part.select()).all())
    assert kept < 4 * 3  # a policy, a pool, a group; one decision body


def test_an_older_governor_is_fenced_and_writes_nothing(tmp_path, ledger):
    other = Ledger(f"sqlite:///{tmp_path}/ledger.db", "tcp://s")
    assert other.take("other", 5_000, 10_000) is None
    assert other.take("other", 20_000, 10_000) == 2
    with pytest.raises(FencedError):
        ledger.append(entry())
    assert other.append(entry()) == 1


def test_the_same_holder_takes_over_at_once(tmp_path, ledger):
    again = Ledger(f"sqlite:///{tmp_path}/ledger.db", "tcp://s")
    assert again.take("me", 1001, 10_000) == 2


def test_a_ledger_of_a_newer_version_is_refused_and_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/new.db"
    made = Ledger(url, "s")
    with made.engine.begin() as db:
        db.execute(update(t.version).values(version=t.VERSION + 1))
    with pytest.raises(LedgerNewerError, match="newer orc-agent"):
        Ledger(url, "s")


def test_a_ledger_that_cannot_be_opened_says_where_and_what_to_do(tmp_path):
    with pytest.raises(LedgerError, match="ORC_LEDGER_URL"):
        Ledger(f"sqlite:///{tmp_path}/none/ledger.db", "s")


def test_two_governors_never_reserve_more_than_the_budget(tmp_path, ledger):
    ledger.declare_budgets({"team": 1_000_000})
    other = Ledger(f"sqlite:///{tmp_path}/ledger.db", "tcp://other")
    other.take("me", 0, 0)
    ledger.append(entry(1, budget="team", reserve=600_000))
    with pytest.raises(BudgetTakenError):
        other.append(entry(1, budget="team", reserve=600_000))
    assert other.records() == []
    other.append(entry(1, budget="team", reserve=400_000))
    assert ledger.budgets()["team"].left_usd_micros == 0


def test_an_outcome_settles_its_reservation(ledger):
    ledger.declare_budgets({"team": 1_000_000})
    ledger.append(entry(1, budget="team", reserve=600_000))
    ledger.append(Entry(kind="round", at_ms=3000, outcomes=[Ended(placement=1, result="done", usd_micros=200_000)]))
    budget = ledger.budgets()["team"]
    assert (budget.reserved_usd_micros, budget.spent_usd_micros, budget.left_usd_micros) == (0, 200_000, 800_000)


def test_placements_without_an_outcome_are_open(ledger):
    fill(ledger)
    assert [id for id, *_ in ledger.open_placements()] == [2, 3, 4]


def test_a_lease_is_written_again_as_it_changes(ledger):
    made = Lease(id=1, pool="spot", kind="spot", worker="spot-0", asked_ms=1, cause="work", price='{"steps": [[0, 1]]}')
    ledger.append(Entry(kind="round", at_ms=1, leases=[made]))
    assert ledger.open_leases() == [made]
    from dataclasses import replace

    ledger.append(Entry(kind="round", at_ms=2, leases=[replace(made, ended_ms=2, cause="drained")]))
    assert ledger.open_leases() == []
