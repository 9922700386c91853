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
from agent.ledger import kinds
from agent.ledger import schema as t
from agent.ledger.budgets import BudgetTakenError
from agent.ledger.ledger import Ledger
from agent.ledger.snapshots import split
from agent.ledger.verify import Report, verify
from agent.model.codec import digest, encode
from agent.model.records import Decided, Ended, Entry, FlowRun, Lease, Placed
from agent.planner.plan import plan
from tests.values import group, pool, snapshot, state


@pytest.fixture
def ledger(url):
    made = Ledger(url, "tcp://s")
    made.acquire_lease("me", 1000, 10_000)
    yield made
    made.close()


def entry(number=1, at=2000, budget=None, reserve=0, **says):
    """A round with one decision, one placement and the plan it came from."""
    shot = snapshot(state(pool(), 1), groups=(group(),), now_ms=at)
    made = plan(shot)
    head, parts = split(shot)
    return Entry(
        kind="round",
        at_ms=at,
        says={"head": head, "plan": digest(encode(made)), **says},
        parts=parts,
        runs=[FlowRun(no=number, flow_run=f"f{number}", team="red", trace="1f")],
        decisions=[Decided(id=number, run=number, team="blue", decision=made.decisions[0])],
        placements=[Placed(id=number, decision=number, key=f"k{number}", budget=budget, reserve_usd_micros=reserve)],
    )


def faults(ledger, replay=True):
    return [(f.seq, f.what) for f in verify(ledger, Report(), replay)]


def fill(ledger):
    for n in range(1, 5):
        ledger.append(entry(n, at=1000 * n))
    ledger.append(Entry(kind="round", at_ms=9000, outcomes=[Ended(placement=1, result="done", run_ms=10, start_ms=1)]))


def test_what_was_appended_is_followed_in_order_by_a_cursor(ledger):
    fill(ledger)
    assert [r.seq for r in ledger.records(after=ledger.cursors.position("me"))] == [1, 2, 3, 4, 5]
    ledger.cursors.advance("me", 3)
    ledger.cursors.advance("me", 4)
    assert [r.seq for r in ledger.records(after=ledger.cursors.position("me"))] == [5]
    assert ledger.cursors.position("another") == 0


def test_a_whole_ledger_verifies_and_its_plans_come_out_again(ledger):
    fill(ledger)
    done = Report()
    assert list(verify(ledger, done, replay=True)) == []
    assert (done.records, done.replayed) == (5, 4)


def test_a_changed_record_is_found(ledger):
    fill(ledger)
    with ledger.database.writing() as db:
        body = zlib.compress(zlib.decompress(ledger_body(db, 2)).replace(b"now", b"eon"))
        db.execute(update(t.record).where(t.record.c.seq == 2).values(body=body))
    assert any(seq == 2 and "changed" in what for seq, what in faults(ledger, replay=False))


def ledger_body(db, seq):
    return db.execute(t.record.select().where(t.record.c.seq == seq)).one().body


def test_a_missing_record_is_found(ledger):
    fill(ledger)
    with ledger.database.writing() as db:
        db.execute(delete(t.record).where(t.record.c.seq == 3))
    assert (3, "record 3 is missing") in faults(ledger, replay=False)


def test_a_cut_off_end_is_found(ledger):
    fill(ledger)
    with ledger.database.writing() as db:
        db.execute(delete(t.record).where(t.record.c.seq == 5))
    assert faults(ledger, replay=False) == [(5, "the end is missing: record 5 was acknowledged")]


def test_reordered_records_are_found(ledger):
    fill(ledger)
    with ledger.database.writing() as db:
        db.execute(update(t.record).where(t.record.c.seq == 2).values(seq=99))
        db.execute(update(t.record).where(t.record.c.seq == 3).values(seq=2))
        db.execute(update(t.record).where(t.record.c.seq == 99).values(seq=3))
    assert {2, 3} <= {seq for seq, _ in faults(ledger, replay=False)}


@pytest.mark.parametrize("what", ["outcome", "placement", "added", "team of a run", "team of a decision", "chunk"])
def test_a_changed_row_is_found(ledger, what):
    fill(ledger)
    with ledger.database.writing() as db:
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
    with ledger.reading() as db:
        kept = len(db.execute(t.part.select()).all())
    assert kept < 4 * 3  # a policy, a pool, a group; one decision body


def test_an_older_governor_is_fenced_and_writes_nothing(url, ledger):
    other = Ledger(url, "tcp://s")
    assert other.acquire_lease("other", 5_000, 10_000) is None
    assert other.acquire_lease("other", 20_000, 10_000) == 2
    with pytest.raises(FencedError):
        ledger.append(entry())
    assert other.append(entry()) == 1


def test_the_same_holder_takes_over_at_once(url, ledger):
    again = Ledger(url, "tcp://s")
    assert again.acquire_lease("me", 1001, 10_000) == 2


def test_a_ledger_that_cannot_be_opened_says_where_and_what_to_do(tmp_path):
    with pytest.raises(LedgerError, match="ORC_LEDGER_URL"):
        Ledger(f"sqlite:///{tmp_path}/none/ledger.db", "s")


def test_two_governors_never_reserve_more_than_the_budget(url, ledger):
    ledger.declare_budgets({"team": 1_000_000})
    other = Ledger(url, "tcp://other")
    other.acquire_lease("me", 0, 0)
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
        ledger.acquire_lease("me", 0, 0)
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


# ---------------------------------------------------------------------- what is said besides
ANSWER = {"answer": "approve", "groups": ["g"], "rules": ["r"], "pool": "spot", "by": "ada"}
#: what a ledger of before has in one bag, and the kind of each
BAG = {
    "notice": {"notice": "spot-0", "left_ms": 5},
    "departure": {"left": "spot-0", "why": "cut off"},
    "answer": ANSWER,
    "rules": {"rules_in_force": "1f"},
    "refusal": {"refused": ["k"], "count": 1, "why": "no"},
    "out_of_memory": {"starved": "work", "mib": 512},
    "restart": {"cancelled by restart": {"held": 3}},
}


def test_notes_are_read_by_their_kind_in_their_order_also_out_of_the_bag_of_before(ledger):
    assert set(BAG) < set(kinds.NOTES)
    ledger.append(Entry(kind="said", at_ms=2000, says={"said": [*BAG.values(), {"override": "spot", "groups": ["h"]}]}))
    ledger.append(Entry(kind="refusal", at_ms=3000, says={"notes": [{"why": "later"}, {"why": "last"}]}))
    ledger.append(Entry(kind="answer", at_ms=4000, actor="eve", says={"notes": [ANSWER]}))
    found = list(ledger.notes(kinds.NOTES))
    assert [note.kind for note in found] == [*BAG, "answer", "refusal", "refusal", "answer"]
    assert [note.body for note in found[:7]] == list(BAG.values())
    assert [(note.seq, note.at_ms, note.body["why"]) for note in ledger.notes(["refusal"])] == [
        (1, 2000, "no"),
        (2, 3000, "later"),
        (2, 3000, "last"),
    ]
    assert [note.actor for note in ledger.answers()] == ["governor", "governor", "eve"]
    assert [note.seq for note in ledger.notes(["answer"], after=2)] == [3]


@pytest.mark.parametrize("notes", [["approve", None, 3], "approve", None])
def test_notes_that_are_none_are_told_and_passed_over(ledger, notes, caplog):
    ledger.append(Entry(kind="answer", at_ms=2000, says={"notes": notes}))
    ledger.append(Entry(kind="answer", at_ms=2000, says={"notes": [ANSWER]}))
    assert [note.body for note in ledger.answers()] == [ANSWER]
    assert "record 1 of the ledger holds a note that cannot be read" in caplog.text


def test_every_answer_is_read_however_many_records_there_are(ledger):
    body = zlib.compress(encode({"said": [BAG["notice"]]}))
    columns = {
        "epoch": 1,
        "at_ms": 1,
        "mode": "govern",
        "actor": "governor",
        "team": "",
        "trace": "",
        "root_run": "",
        "hash": b"",
    }
    bag = [{**columns, "chain": ledger.chain, "seq": seq, "kind": "said", "body": body} for seq in range(1, 10_101)]
    bag[10_050]["body"] = zlib.compress(encode({"said": [BAG["notice"], ANSWER, BAG["out_of_memory"]]}))
    with ledger.database.writing() as db:
        db.execute(insert(t.record), bag)
    # the writer goes on behind them
    ledger.acquire_lease("me", 2000, 0)
    ledger.append(Entry(kind="answer", at_ms=3000, says={"notes": [{**ANSWER, "by": "eve"}]}))
    assert [(note.seq, note.body["by"]) for note in ledger.answers()] == [(10_051, "ada"), (10_101, "eve")]


# ---------------------------------------------------------------------- what statistics are rebuilt from
def test_executions_come_in_the_order_in_which_they_ended_with_all_that_statistics_need(ledger):
    for n in range(1, 5):
        ledger.append(entry(n, at=1000 * n))
    late = Ended(placement=1, result="done", start_ms=100, run_ms=900, spared_ms=50, items=10)
    early = Ended(placement=3, result="preempted", start_ms=100, run_ms=200, ran_in="default", lease=7)
    ledger.append(Entry(kind="round", at_ms=9000, outcomes=[late, early]))
    ledger.append(Entry(kind="round", at_ms=9001, outcomes=[Ended(placement=2, result="done", start_ms=1, run_ms=1)]))
    found = ledger.executions()
    assert [(x.ended.placement, x.pool) for x in found] == [(3, "default"), (1, "on-demand"), (2, "on-demand")]
    assert [x.ended for x in found[:2]] == [early, late]
    assert {x.task_class for x in found} == {"work"}
    assert [x.ended.placement for x in ledger.executions(limit=1)] == [2]
    assert faults(ledger) == []


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
    made.acquire_lease("me", 1000, 10_000)
    made.append(entry(1))
    yield made
    made.close()


@pytest.mark.real
def test_what_happens_while_the_database_is_away_is_spooled_and_merged_in_order(spooling, away):
    with away():
        for n in range(2, 6):
            spooling.append(entry(n, at=1000 * n))
        spooling.append(Entry(kind="round", at_ms=9000, outcomes=[Ended(placement=2, result="done", run_ms=10)]))
        spooling.renew_lease(9_500)
        assert spooling.away
        with pytest.raises(LedgerAwayError):
            spooling.records()
    spooling.writer.retry_at = 0.0
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
    spooling.writer.retry_at = 0.0
    spooling.append(entry(4, budget="team", reserve=900_000))  # what was settled meanwhile is free again
    assert spooling.budgets()["team"].spent_usd_micros == 1_000


@pytest.mark.real
def test_a_governor_that_was_killed_with_records_in_its_spool_writes_them_before_it_goes_on(spooling, away, tmp_path):
    with away():
        spooling.append(entry(2))
        spooling.append(entry(3))
    again = Ledger(spooling.url, "tcp://s", tmp_path / "spool.db")
    assert again.acquire_lease("me", 2000, 10_000) == 2
    assert [(r.seq, r.epoch) for r in again.records()] == [(1, 1), (2, 1), (3, 1)]
    again.append(entry(4))
    assert faults(again) == []
    again.close()


@pytest.mark.real
def test_a_record_whose_answer_was_lost_is_not_written_twice(spooling, tmp_path):
    sealed, _, rows = spooling.writer.seal(entry(2))
    spooling.writer.write(sealed, rows)  # it was written, and the connection broke before the answer
    spooling.spool.put("tcp://s", sealed)
    again = Ledger(spooling.url, "tcp://s", tmp_path / "spool.db")
    assert again.acquire_lease("me", 2000, 10_000) == 2
    assert [r.seq for r in again.records()] == [1, 2]
    assert list(again.spool.records("tcp://s")) == []
    again.close()


@pytest.mark.real
def test_records_behind_a_take_over_are_kept_whole_in_a_record_of_their_own(spooling, tmp_path):
    sealed, _, _ = spooling.writer.seal(entry(2))
    spooling.spool.put("tcp://s", sealed)  # cut off from the database, while another governor was not
    other = Ledger(spooling.url, "tcp://s")
    assert other.acquire_lease("other", 50_000, 10_000) == 2
    other.append(entry(3, at=50_500))
    again = Ledger(spooling.url, "tcp://s", tmp_path / "spool.db")
    assert again.acquire_lease("me", 51_000, 10_000) is None  # the other one lives: it waits, and loses nothing
    assert again.acquire_lease("me", 90_000, 10_000) == 3
    merged = again.records(kind="merged")
    assert [r["seq"] for r in merged[0].body["records"]] == [2]
    assert merged[0].body["records"][0]["placements"][0]["key"] == "k2"
    assert list(again.spool.records("tcp://s")) == []
    assert faults(again) == []
    for ledger in (again, other):
        ledger.close()
