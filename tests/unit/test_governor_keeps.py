"""What a governor must not lose or forget: its lease, workers never asked for, what it learned, who said what."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent.errors import BudgetTakenError
from agent.governor.journal import STALE_MS
from agent.governor.recovery import recover
from agent.ledger import reader
from agent.ledger import schema as t
from agent.model.effects import Note
from agent.model.events import TaskCheckpointed, TaskEnded, TaskReady, WorkerLeft
from agent.model.leases import EndCause
from agent.model.outcomes import Result
from agent.model.records import Entry
from agent.pools.memory import MemoryProvider
from agent.pools.port import Gone
from agent.state.stale import plan_is_stale
from agent.state.tasks import SavedWork
from tests.unit.rig import SAFE, SPOT, Rig
from tests.values import HOUR, MINUTE, pool

ASKS = "rules: [{name: ask, reason: people decide, then: {escalate: {}}}]"
LAUNCHED = (replace(SPOT, provider="memory"), replace(SAFE, provider="memory"))


@pytest.fixture
def made(tmp_path):
    """Makes rigs, and ends them with a whole ledger."""
    rigs = []

    def make(**said):
        rigs.append(Rig(tmp_path, **said))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.end()


def told(story):
    """Run a story in a loop of its own."""
    asyncio.run(story)


async def settle():
    """Let the jobs beside the rounds do what they can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_governor_whose_only_task_waits_for_a_person_keeps_its_lease(made):
    async def story():
        rig = made(rules=ASKS)
        await rig.governor.take()
        rig.spec()
        rig.join("on-demand")
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        for _ in range(30):
            await rig.round(1)
        assert [hold.reason for hold in rig.governor.holds.values()] == ["approval"]
        assert rig.ledger.acquire_lease("second", rig.now, STALE_MS) is None

    told(story())


def test_a_refused_commit_leaves_no_worker_behind_that_was_never_asked_for(made):
    async def story():
        provider = MemoryProvider()
        rig = made(pools=LAUNCHED, providers={"memory": provider})
        await rig.governor.take()
        rig.spec(interruptible=True)
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        append, refused = rig.ledger.append, []

        def refuse_once(entry):
            if entry.leases and not refused:
                refused.append(entry)
                raise BudgetTakenError("another governor was faster")
            return append(entry)

        rig.ledger.append = refuse_once
        await rig.round()
        assert len(refused) == 1
        assert [status.starting for status in rig.governor.state.fleet.pools.values()] == [{}, {}]
        await rig.round(1)
        await settle()
        starting = {name for status in rig.governor.state.fleet.pools.values() for name in status.starting}
        assert starting == set(provider.workers)
        assert len(starting) == 1
        # and what was decided with it is on record, although the first record of it was refused
        await rig.round(1)
        with rig.ledger.reading() as db:
            numbers = {row.id for row in db.execute(t.decision.select())}
        assert set(rig.governor.recorder.decisions) == numbers

    told(story())


def test_statistics_are_the_same_before_and_after_a_restart(made):
    async def story():
        rig = made(pools=LAUNCHED, providers={"memory": MemoryProvider({"spot": 0})})
        provider, governor = rig.providers["memory"], rig.governor
        await governor.take()
        await governor.provisioner.adopt()
        rig.spec(interruptible=True, runtime_ms=MINUTE)
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        await rig.round()
        await settle()  # refused
        provider.capacity.clear()
        await rig.round(90)
        await settle()  # granted
        (worker,) = governor.state.fleet.pools["spot"].starting
        rig.now += 40_000
        rig.join("spot", worker)
        await rig.round(1)
        rig.say(TaskCheckpointed("work-1", rig.now + 30_000, 2**20))
        rig.now += HOUR
        provider.report(Gone(worker=worker, cause=EndCause.INTERRUPTED, detail="Evicted: Preempted by the node pool"))
        checkpoint = (rig.now - MINUTE, 2**20)
        rig.say(TaskEnded("work-1", Result.MOVED, "tcp://spot", 0, 0, 0, (), checkpoint))
        rig.say(WorkerLeft("tcp://spot", ""))
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        rig.join("on-demand")
        await rig.round(1)
        assert governor.state.bound["work-1"].pool == "on-demand"
        rig.say(TaskEnded("work-1", Result.DONE, "tcp://on-demand", rig.now, rig.now + 20_000, 0))
        rig.now += 20_000
        await rig.round(0)
        await rig.round(2 * MINUTE / 1000)
        learned = governor.state.statistics
        assert learned.watched["spot"][1] == 1  # whatever the cause was called
        assert learned.startups["spot"] > 0
        assert learned.away["spot"][1] == 1
        assert learned.runtimes["work", "on-demand"].mean > 15  # with what the checkpoint spared
        heir = rig.new("test")
        assert await heir.take()
        heir.state.forget_quiet(rig.now)
        again = heir.state.statistics
        for name in ("runtimes", "watched", "away", "startups", "tails", "items_ms", "oom_mib"):
            assert dict(getattr(again, name)) == dict(getattr(learned, name)), name

    told(story())


def test_a_persons_answer_is_on_record_as_theirs_and_the_first_one_counts(made):
    async def story():
        rig = made(rules=ASKS)
        governor = rig.governor
        await governor.take()
        rig.spec()
        rig.join("on-demand")
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        await rig.round()
        (hold,) = governor.holds.values()
        (asked,) = governor.state.approvals.find(hold.approval)
        assert governor.state.approvals.find(hold.group[:12]) == [asked]
        closed = governor.state.approvals.close(asked.id)
        governor.outbox.note(Note(kind="approval", body=closed.body(), actor="ada"))
        body = {
            "answer": "approve",
            "groups": [closed.group],
            "rules": list(closed.rules),
            "pool": closed.pool,
            "by": "ada",
        }
        governor.outbox.answer(body, "ada")
        assert governor.state.approvals.find(asked.id) == []
        await rig.round(1)
        assert governor.state.bound["work-1"].pool == "on-demand"
        records = [(record.kind, record.actor) for record in rig.ledger.records()]
        assert ("answer", "ada") in records
        assert ("approval", "governor") in records
        assert ("round", "ada") not in records

    told(story())


def test_answers_are_replayed_however_many_there_are_and_one_that_cannot_be_read_is_passed(made, monkeypatch, caplog):
    monkeypatch.setattr(reader, "PAGE", 3)

    async def story():
        rig = made()
        await rig.governor.take()
        for number in range(10):
            body = {"answer": "reject", "groups": [f"group-{number}"], "by": "ada"}
            rig.ledger.append(Entry(kind="answer", at_ms=1, says={"notes": [body]}))
        poisoned = {"answer": "approve", "groups": ["x"], "rules": ["r"], "pool": "p", "by": "eve", "usd_micros": "x"}
        rig.ledger.append(Entry(kind="answer", at_ms=1, says={"notes": [poisoned, "no note at all"]}))
        rig.ledger.append(Entry(kind="said", at_ms=1, says={"said": [{"override": "spot", "groups": ["old"]}]}))
        heir = rig.new("test")
        assert await heir.take()
        answers = heir.state.groups.answers
        assert [answers[f"group-{number}"].rejected_by for number in range(10)] == ["ada"] * 10
        assert answers["old"].override == "spot"
        assert answers["x"].approved_usd_micros is None
        assert answers["x"].approved_by is None
        assert caplog.text.count("cannot be read") == 2

    told(story())


def test_a_question_keeps_its_id_while_it_is_open_though_the_group_is_renamed(made):
    rules = "rules: [{name: night, reason: nobody looks, when: {hour: {at_least: 0}}, then: {escalate: {}}}]"

    async def story():
        rig = made(rules=rules)
        await rig.governor.take()
        rig.spec(memory_mib=512)
        rig.join("on-demand")
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        await rig.round()
        (before,) = rig.governor.holds.values()
        # the class runs out of memory elsewhere: what waits is another group now
        rig.governor.state.out_of_memory("work", 600)
        await rig.round(1)
        (after,) = rig.governor.holds.values()
        assert before.group != after.group
        assert before.approval == after.approval
        assert [asked.id for asked in rig.governor.state.approvals.find(before.group[:12])] == [after.approval]
        # and the next governor knows it by the same id
        heir = rig.new("test")
        assert await heir.take()
        assert [asked.id for asked in heir.state.approvals.find(after.approval)] == [after.approval]

    told(story())


def test_a_plan_is_made_again_when_it_says_that_time_alone_changes_it(made):
    async def story():
        rig = made()
        await rig.governor.take()
        rig.spec()
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        planned = rig.now
        assert not plan_is_stale(rig.governor.state, planned + 400, planned, None)
        assert plan_is_stale(rig.governor.state, planned + 400, planned, planned + 300)
        assert not plan_is_stale(rig.governor.state, planned + 400, planned, planned + 500)

    told(story())


def test_a_launch_that_fails_by_a_fault_of_ours_is_named_and_teaches_nothing_of_the_market(made):
    class Broken(MemoryProvider):
        async def launch(self, pool, worker):
            raise OSError("no such image")

    async def story():
        rig = made(pools=(replace(pool("spot", "spot", 0.02), provider="memory"),), providers={"memory": Broken()})
        await rig.governor.take()
        rig.spec(interruptible=True)
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        await rig.round()
        await settle()
        status = rig.governor.state.fleet.pools["spot"]
        assert status.fault == "no such image"
        assert status.refused_since_ms is None
        assert status.retry_ms > rig.now
        await rig.round(1)
        (hold,) = rig.governor.holds.values()
        assert "no such image" in hold.why
        assert not rig.governor.state.statistics.away

    told(story())


def test_what_a_checkpoint_keeps_of_a_task_that_waits_is_known_to_the_next_governor(made):
    async def story():
        rig = made()
        await rig.governor.take()
        rig.spec(interruptible=True, checkpoint_ms=1_000)
        rig.join("on-demand")
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        await rig.round()
        bound_ms = rig.now
        rig.now += 90_000
        saved = (bound_ms + 60_000, 3 * 2**20)
        rig.say(TaskEnded("work-1", Result.MOVED, "tcp://on-demand", bound_ms, rig.now, 0, (), saved))
        assert rig.governor.state.saved["work-1"].done_ms == 60_000
        await rig.round()
        await rig.governor.journal.resign()
        rig.governor = rig.new("second")
        await rig.governor.take()
        assert rig.governor.state.saved["work-1"] == SavedWork(60_000, "on-demand", 3)

    told(story())


def test_a_bound_task_that_is_taken_up_has_run_since_it_was_bound(made):
    async def story():
        rig = made()
        await rig.governor.take()
        rig.spec(interruptible=True, checkpoint_ms=1_000, runtime_ms=10 * MINUTE)
        rig.join("on-demand")
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        await rig.round()
        bound_ms = rig.now
        rig.now += 5 * MINUTE
        state = rig.new("second").state
        for worker in rig.joined:
            state.fleet.joined(worker, rig.now)
        state.specs.append(rig.governor.state.specs[0])
        seen = {
            "bound": [("work-1", 0, "tcp://on-demand", bound_ms, [bound_ms + 4 * MINUTE, 10])],
            "ended": [], "ready": [],
        }  # fmt: skip
        state.checkpointed("work-0", 1, "on-demand", 1)
        recover(state, rig.governor.recorder, rig.ledger.open_placements(), seen, Entry(kind="start", at_ms=0), rig.now)
        taken = state.bound["work-1"]
        assert taken.at_ms == bound_ms
        assert taken.saved == (bound_ms + 4 * MINUTE, 10)
        assert taken.expected_ms > 8 * MINUTE
        assert not state.saved, "of a task that is neither bound nor waits"

    told(story())
