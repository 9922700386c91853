"""The governor's rounds, with a real ledger and a clock and an extension of the test's own."""

from __future__ import annotations

import asyncio
import zlib
from dataclasses import replace

import pytest

from agent.ledger import schema as t
from agent.ledger.digests import chain_hash, rows_digest
from agent.model import codec
from agent.model.events import SpecAdded, TaskCheckpointed, TaskEnded, TaskPlacedByDask, TaskReady, WorkerLeft
from agent.model.outcomes import Result
from agent.model.records import Entry
from agent.scheduler import protocol
from tests.unit.rig import SPOT, Rig
from tests.values import MINUTE


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path)
    yield made
    made.end()


def test_a_task_that_takes_too_long_is_moved_at_its_checkpoint_once_a_cheaper_worker_is_there(rig):
    async def story():
        await rig.governor.take()
        rig.spec(interruptible=True, runtime_ms=MINUTE)
        rig.join("on-demand")
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        await rig.round()
        assert rig.governor.state.bound["work-1"].pool == "on-demand"
        rig.join("spot")
        await rig.round(90)
        assert "leave" not in [verb for verb, _ in rig.history()]
        # more than twice what was said; it cannot leave yet
        await rig.round(120)
        assert rig.history()[-1][0] == "leave"
        assert "no checkpoint" in rig.history()[-1][1]
        rig.say(TaskCheckpointed("work-1", rig.now - 1000, 2**20))
        await rig.round(300)
        (leave,) = [said["leave"] for said in rig.told if said.get("leave")]
        assert leave[0][0] == "work-1"
        assert "moved: " in leave[0][1]
        rig.say(TaskEnded("work-1", Result.MOVED, "tcp://on-demand", 0, 0, 0, (), (rig.now - 500, 2**20)))
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        await rig.round(1)
        bound = rig.governor.state.bound["work-1"]
        assert bound.pool == "spot"
        assert rig.governor.state.losses.get("work-1", (0, 0)) == (0, 0)
        assert "goes on from a checkpoint" in rig.history()[-1][1]
        rig.say(TaskEnded("work-1", Result.DONE, "tcp://spot", rig.now, rig.now + 10, 0))
        await rig.round(1)
        assert rig.outcomes() == ["moved", "done"]

    asyncio.run(story())


def test_a_class_that_ran_out_of_memory_is_given_more_also_by_the_next_governor(rig, tmp_path):
    async def story():
        await rig.run_out(512)
        binds = [bind for said in rig.told for bind in said.get("binds", ())]
        assert [bind["memory_mib"] for bind in binds] == [512, 1024]
        assert "ran out of 512 MiB, is given 1 GiB" in rig.history()[-1][1]
        rig.say(TaskEnded("work-1", Result.DONE, "tcp://on-demand", rig.now, rig.now + 10, 0))
        await rig.round(1)
        assert rig.outcomes() == ["out of memory", "done"]
        rig.now += 60_000
        heir = rig.new("heir")
        assert await heir.take()
        assert heir.state.statistics.oom_mib == {"work": 512}

    asyncio.run(story())


def test_needs_that_outgrow_every_worker_are_refused_with_what_was_tried(rig):
    async def story():
        await rig.run_out(4096)
        (refused,) = [said["refuse"] for said in rig.told if said.get("refuse")]
        assert refused[0][:2] == ("work-1", "NeedUnmetError")
        assert "needs 8 GiB and its workers have 4 GiB" in refused[0][2]
        assert rig.history()[-1][0] == "refuse"
        assert "ran out of 4 GiB" in rig.history()[-1][1]

    asyncio.run(story())


def test_a_worker_that_is_gone_is_tried_once_though_its_going_was_not_heard_of(rig):
    async def story():
        await rig.governor.take()
        rig.spec(interruptible=True, runtime_ms=MINUTE)
        rig.join("spot")
        rig.gone.add("spot-0")
        rig.say(TaskReady("work-1", 0, 0, rig.now))
        for _ in range(4):
            await rig.round(1)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert [verb for verb, _ in rig.history()] == ["bind", "wait"]
        assert rig.outcomes() == ["not sent"]
        rig.say(WorkerLeft("tcp://spot", ""))
        rig.gone.clear()
        rig.join("spot")
        await rig.round(1)
        assert rig.governor.state.bound["work-1"].pool == "spot"

    asyncio.run(story())


def test_a_lease_of_a_worker_that_nobody_watched_ends_when_its_provider_or_the_scheduler_lost_it(rig):
    async def story():
        await rig.governor.take()
        held = rig.governor.state.fleet.leases
        leases = [replace(held.draft(SPOT, rig.now, "test"), worker=f"spot-{n}") for n in range(4)]
        for lease in leases:
            held.ask(lease)
            held.granted(lease.id, rig.now)
        lost, rig.now = rig.now + MINUTE, rig.now + 10 * MINUTE
        spot = rig.governor.state.fleet.pools["spot"]
        spot.pool = replace(spot.pool, provider="theirs")
        known = {"theirs": {"spot-2": lost + MINUTE, "spot-3": None}}
        rig.governor.provisioner.recover(known, {"spot-0": lost, "spot-2": lost}, rig.now)
        ended = [held.open[lease.id].ended_ms for lease in leases]
        # by the scheduler, by nobody, by the provider, and one that runs
        assert ended == [lost, rig.now, lost + MINUTE, None]

    asyncio.run(story())


def test_each_decision_knows_whose_it_is_whatever_else_its_record_holds(rig):
    async def story():
        await rig.governor.take()
        for number, team in enumerate(("red", "blue")):
            run = {"flow_run": f"f-{team}", "root_run": f"r-{team}", "team": team, "trace": f"trace-{team}"}
            rig.say(
                SpecAdded(number, {"prefix": team, "says": {protocol.NEEDS: {}, protocol.RUN: run}, "resources": {}})
            )
            rig.say(TaskReady(team, number, 0, rig.now))
        rig.join("on-demand")
        await rig.round()
        with rig.ledger.reading() as db:
            joined = t.decision.join(t.run, t.run.c.no == t.decision.c.run)
            rows = db.execute(joined.select().order_by(t.decision.c.task_class)).all()
        assert [(row.task_class, row.team, row.root_run, row.trace) for row in rows] == [
            (team, team, f"r-{team}", f"trace-{team}") for team in ("blue", "red")
        ]
        for team in ("red", "blue"):
            rig.say(TaskEnded(team, Result.DONE, "tcp://on-demand", rig.now, rig.now + 10, 0))
        await rig.round(1)

    asyncio.run(story())


def test_an_answer_is_in_force_after_a_restart_however_much_was_said_before_it(rig):
    async def story():
        said = {"answer": "approve", "groups": ["g"], "rules": ["r"], "pool": "spot", "by": "ada"}
        await rig.governor.take()
        body = zlib.compress(
            codec.encode({"said": [{"notice": "spot-0", "left_ms": 1}], "rows": rows_digest((), (), ()).hex()})
        )
        about = {
            "epoch": 1,
            "kind": "said",
            "at_ms": 1,
            "mode": "govern",
            "actor": "governor",
            "team": "",
            "trace": "",
            "root_run": "",
        }
        rows, before = [], b""
        for seq in range(1, 10_051):
            before = chain_hash(before, ["test", seq, *about.values()], body)
            rows.append({**about, "chain": rig.ledger.chain, "seq": seq, "body": body, "hash": before})
        with rig.ledger.database.writing() as db:
            db.execute(t.record.insert(), rows)
            db.execute(t.chain.update().values(last_seq=rows[-1]["seq"]))
        rig.ledger.acquire_lease("test", rig.now, 0)
        rig.ledger.append(Entry(kind="answer", at_ms=rig.now, actor="ada", says={"notes": [said]}))
        heir = rig.new("test")
        assert await heir.take()
        assert heir.state.groups.answers["g"].approved_by == "ada"
        assert [(note.actor, note.body) for note in rig.ledger.answers()] == [("ada", said)]

    asyncio.run(story())


def test_a_task_that_ends_before_its_shadow_plan_is_on_record_gets_its_outcome(rig):
    async def story():
        await rig.governor.take()
        rig.spec()
        rig.join("on-demand")
        rig.say(TaskPlacedByDask("work-1", 0, 0, rig.now, "tcp://on-demand"))
        rig.say(TaskEnded("work-1", Result.DONE, "tcp://on-demand", rig.now, rig.now + 10))  # in the same answer
        await rig.round()
        await rig.round(1)
        assert rig.outcomes() == ["done"]
        assert rig.ledger.open_placements() == []

    asyncio.run(story())
