"""One contract for the ledger on SQLite and on PostgreSQL: appending, following, fencing, budgets, verification."""

from __future__ import annotations

import contextlib
import threading
import uuid
import zlib
from dataclasses import replace

import pytest
from sqlalchemy import delete, insert, update

from agent.errors import FencedError, LedgerAwayError, LedgerError
from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.parts import split
from agent.ledger.rows import BudgetTakenError
from agent.ledger.verify import Report, verify
from agent.model.codec import digest, encode
from agent.model.records import Decided, Ended, Entry, FlowRun, Lease, Placed
from agent.planner.plan import plan
from tests.values import group, pool, snapshot, state


@pytest.fixture
def ledger(url):
    made = Ledger(url, "tcp://s")
    made.take("me", 1000, 10_000)
    yield made
    made.close()


def entry(number=1, at=2000, budget=None, reserve=0, **says):
    """A round with one decision, one placement and the plan it came from."""
    shot = snapshot(state(pool(), 1), groups=(group(),), now_ms=at)
    made = plan(shot)
    head, parts = split(shot)
    return Entry(
        kind="round", at_ms=at, says={"head": head, "plan": digest(encode(made)), **says}, parts=parts, runs=[FlowRun(no=number, flow_run=f"f{number}", team="red", trace="1f")],
        decisions=[Decided(id=number, run=number, team="blue", decision=made.decisions[0])],
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


@pytest.mark.parametrize("what", ["outcome", "placement", "added", "team of a run", "team of a decision", "chunk"])
def test_a_changed_row_is_found(ledger, what):
    fill(ledger)
    with ledger.engine.begin() as db:
        if what == "outcome":
            db.execute(update(t.outcome).values(run_ms=11))
        elif what == "placement":
            db.execute(update(t.placement).where(t.placement.c.id == 2).values(key="other"))
        elif what == "team of a run":
            db.execute(update(t.run).where(t.run.c.no == 2).values(team="other"))
        elif what == "team of a decision":
            db.execute(update(t.decision).where(t.decision.c.id == 2).values(team="other"))
        elif what == "chunk":
            db.execute(update(t.outcome).values(items=11))
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


def test_an_older_governor_is_fenced_and_writes_nothing(url, ledger):
    other = Ledger(url, "tcp://s")
    assert other.take("other", 5_000, 10_000) is None
    assert other.take("other", 20_000, 10_000) == 2
    with pytest.raises(FencedError):
        ledger.append(entry())
    assert other.append(entry()) == 1


def test_the_same_holder_takes_over_at_once(url, ledger):
    again = Ledger(url, "tcp://s")
    assert again.take("me", 1001, 10_000) == 2


def test_a_ledger_that_cannot_be_opened_says_where_and_what_to_do(tmp_path):
    with pytest.raises(LedgerError, match="ORC_LEDGER_URL"):
        Ledger(f"sqlite:///{tmp_path}/none/ledger.db", "s")


def test_two_governors_never_reserve_more_than_the_budget(url, ledger):
    ledger.declare_budgets({"team": 1_000_000})
    other = Ledger(url, "tcp://other")
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
    ledger.append(Entry(kind="round", at_ms=2, leases=[replace(made, ended_ms=2, cause="drained")]))
    assert ledger.open_leases() == []


def test_governors_that_begin_at_once_find_one_set_of_tables(url):
    made, faults_seen = [], []

    def begin(n):
        try:
            made.append(Ledger(url, f"tcp://{n % 2}"))
        except Exception as error:
            faults_seen.append(error)

    threads = [threading.Thread(target=begin, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults_seen
    assert len({ledger.chain for ledger in made}) == 2


def test_two_governors_race_for_a_budget_and_never_overdraw_it(url):
    first = Ledger(url, "tcp://a")
    first.declare_budgets({"team": 1_000_000})
    granted = []

    def spend(name):
        ledger = Ledger(url, name)
        ledger.take("me", 0, 0)
        for n in range(1, 11):
            try:
                ledger.append(entry(n, budget="team", reserve=90_000))
                granted.append(name)
            except BudgetTakenError:
                continue

    threads = [threading.Thread(target=spend, args=(name,)) for name in ("tcp://a", "tcp://b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 11  # 11 x 0.09 fit into one
    assert first.budgets()["team"].reserved_usd_micros == 990_000


# ---------------------------------------------------------------------- the database away: PostgreSQL alone
@pytest.fixture
def away(postgres):
    """Stop the database for a while."""

    @contextlib.contextmanager
    def pulled():
        postgres.stop()
        try:
            yield
        finally:
            postgres.start()

    return pulled


@pytest.fixture
def spooling(postgres, tmp_path):
    """A writer with a spool."""
    url = postgres.database(f"ledger_{uuid.uuid4().hex}")
    made = Ledger(url, "tcp://s", tmp_path / "spool.db")
    made.take("me", 1000, 10_000)
    made.append(entry(1))
    yield made
    made.close()


@pytest.mark.real
def test_what_happens_while_the_database_is_away_is_spooled_and_merged_in_order(spooling, away):
    with away():
        for n in range(2, 6):
            spooling.append(entry(n, at=1000 * n))
        spooling.append(Entry(kind="round", at_ms=9000, outcomes=[Ended(placement=2, result="done", run_ms=10)]))
        spooling.seen(9_500)
        assert spooling.away
        with pytest.raises(LedgerAwayError):
            spooling.records()
    spooling._retry_at = 0.0
    spooling.append(entry(7, at=10_000))
    assert not spooling.away
    assert [r.seq for r in spooling.records()] == [1, 2, 3, 4, 5, 6, 7]
    assert [id for id, *_ in spooling.open_placements()] == [1, 3, 4, 5, 7]
    assert faults(spooling) == []


@pytest.mark.real
def test_no_money_is_reserved_while_the_database_is_away(spooling, away):
    spooling.declare_budgets({"team": 1_000_000})
    spooling.append(entry(2, budget="team", reserve=600_000))
    with away():
        with pytest.raises(LedgerAwayError):
            spooling.append(entry(3, budget="team", reserve=100_000))
        spooling.append(Entry(kind="round", at_ms=3000, outcomes=[Ended(placement=2, result="done", usd_micros=1_000)]))
    spooling._retry_at = 0.0
    spooling.append(entry(4, budget="team", reserve=900_000))  # what was settled meanwhile is free again
    assert spooling.budgets()["team"].spent_usd_micros == 1_000


@pytest.mark.real
def test_a_governor_that_was_killed_with_records_in_its_spool_writes_them_before_it_goes_on(spooling, away, tmp_path):
    with away():
        spooling.append(entry(2))
        spooling.append(entry(3))
    again = Ledger(spooling.url, "tcp://s", tmp_path / "spool.db")
    assert again.take("me", 2000, 10_000) == 2
    assert [(r.seq, r.epoch) for r in again.records()] == [(1, 1), (2, 1), (3, 1)]
    again.append(entry(4))
    assert faults(again) == []
    again.close()


@pytest.mark.real
def test_a_record_whose_answer_was_lost_is_not_written_twice(spooling, tmp_path):
    sealed, _, rows = spooling._sealed(entry(2))
    spooling._write(sealed, rows)  # it was written, and the connection broke before the answer
    spooling.spool.put("tcp://s", sealed)
    again = Ledger(spooling.url, "tcp://s", tmp_path / "spool.db")
    assert again.take("me", 2000, 10_000) == 2
    assert [r.seq for r in again.records()] == [1, 2]
    assert list(again.spool.records("tcp://s")) == []
    again.close()


@pytest.mark.real
def test_records_behind_a_take_over_are_kept_whole_in_a_record_of_their_own(spooling, tmp_path):
    sealed, _, _ = spooling._sealed(entry(2))
    spooling.spool.put("tcp://s", sealed)  # cut off from the database, while another governor was not
    other = Ledger(spooling.url, "tcp://s")
    assert other.take("other", 50_000, 10_000) == 2
    other.append(entry(3, at=50_500))
    again = Ledger(spooling.url, "tcp://s", tmp_path / "spool.db")
    assert again.take("me", 51_000, 10_000) is None  # the other one lives: it waits, and loses nothing
    assert again.take("me", 90_000, 10_000) == 3
    merged = again.records(kind="merged")
    assert [r["seq"] for r in merged[0].body["records"]] == [2]
    assert merged[0].body["records"][0]["placements"][0]["key"] == "k2"
    assert list(again.spool.records("tcp://s")) == []
    assert faults(again) == []
    for ledger in (again, other):
        ledger.close()
