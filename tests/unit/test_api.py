"""The API: who may ask, what is refused at the door, and that the first answer counts."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from fastapi.routing import APIRoute

from agent.api.app import application
from agent.api.client import PREFIX, TOKEN
from agent.api.serving import Serving
from agent.governor.desk import GovernorDesk
from agent.model.events import TaskReady
from tests.unit.rig import Rig

ASKS = "rules: [{name: ask, reason: people decide, then: {escalate: {}}}]"


@pytest.fixture
def rig(tmp_path):
    made = Rig(tmp_path, rules=ASKS)
    yield made
    made.end()


async def asked(rig, interruptible=False):
    """A governor that asks a person about a task, and a client of its API."""
    await rig.governor.take()
    rig.spec(interruptible=interruptible)
    for name in ("on-demand", *(["spot"] if interruptible else [])):
        rig.join(name)
    rig.say(TaskReady("work-1", 0, 0, rig.now))
    await rig.round()
    app = application(GovernorDesk(rig.governor), "secret")
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://orc", headers={TOKEN: "secret"})


async def commands(rig, count):
    """Once so many words have come in, what the loop does with them between two rounds."""
    while len(rig.governor._commands) < count:
        await asyncio.sleep(0)
    taken, rig.governor._commands = rig.governor._commands, []
    for command in taken:
        command(rig.now)
    await rig.governor.outbox.carry_out(rig.governor.provisioner, rig.now)


async def answer(rig, client, verb, **said):
    """An answer, taken by the governor's next round."""
    sent = asyncio.create_task(client.post(f"{PREFIX}/{verb}", json=said))
    await commands(rig, 1)
    return await sent


def test_every_route_but_health_and_metrics_asks_for_the_token(rig):
    async def story():
        async with await asked(rig) as client:
            app = client._transport.app
            routes = [route for route in app.routes if isinstance(route, APIRoute)]
            assert len(routes) >= 7
            for route in routes:
                path = route.path.replace("{verb}", "approve")
                for token in ("", "wrong", "sécret"):
                    for method in route.methods:
                        reply = await client.request(method, path, headers={TOKEN: token.encode()}, json={})
                        open_to_all = route.path in ("/metrics", "/health")
                        assert reply.status_code == (200 if open_to_all else 403), (path, reply.text)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"by": "ada"}, "id: Field required"),
        ({"id": "abc", "by": "ada"}, "id: String should have at least 8 characters"),
        ({"id": "0123456789ab", "by": ""}, "by: String should have at least 1 character"),
        ({"id": "0123456789ab", "by": {"a": 1}}, "by: Input should be a valid string"),
        ({"id": "0123456789ab", "by": "ada", "usd_micros": "x"}, "usd_micros: Input should be a valid integer"),
        ({"id": "0123456789ab", "by": "ada", "usd_micros": 1.5}, "usd_micros: Input should be a valid integer"),
        ({"id": "0123456789ab", "by": "ada", "usd_micros": -1}, "usd_micros: Input should be greater than"),
        ({"id": "0123456789ab", "by": "ada", "usd_micros": True}, "usd_micros: Input should be a valid integer"),
        ({"id": "0123456789ab", "by": "ada", "rules": []}, "rules: Extra inputs are not permitted"),
        (["a", "list"], "the body: Input should be"),
    ],
)
def test_an_answer_that_is_not_one_is_refused_with_the_place_and_changes_nothing(rig, said, why):
    async def story():
        async with await asked(rig) as client:
            before = rig.ledger.last_seq()
            reply = await client.post(f"{PREFIX}/approve", json=said)
            assert reply.status_code == 400
            assert why in reply.json()["error"]
            assert not rig.governor._commands
            await rig.round(0)
            assert rig.ledger.last_seq() <= before + 1  # the question itself goes on record

    asyncio.run(story())


def test_the_first_answer_counts_and_the_second_is_told_so(rig):
    async def story():
        async with await asked(rig) as client:
            (hold,) = (await client.get(f"{PREFIX}/why")).json()["holds"]
            first = asyncio.create_task(client.post(f"{PREFIX}/reject", json={"id": hold["id"], "by": "alice"}))
            while not rig.governor._commands:
                await asyncio.sleep(0)
            second = asyncio.create_task(client.post(f"{PREFIX}/approve", json={"id": hold["id"], "by": "bob"}))
            await commands(rig, 2)
            replies = [await first, await second]
            assert [reply.status_code for reply in replies] == [200, 409]
            late = await client.post(f"{PREFIX}/approve", json={"id": hold["id"], "by": "carol"})
            assert (late.status_code, "the question was answered" in late.json()["error"]) == (409, True)
            await rig.round(1)
            assert rig.governor.state.bound == {}
            refused = [said["refuse"] for said in rig.told if said.get("refuse")]
            assert refused[-1][0][1:] == ("RejectedError", "rejected by alice")
            answers = [record for record in rig.ledger.records(kind="answer")]
            assert [(record.actor, record.body["notes"][0]["how"]) for record in answers] == [("alice", "claimed")]

    asyncio.run(story())


def test_nobody_is_told_that_an_answer_was_taken_before_it_is_on_record(rig):
    async def story():
        async with await asked(rig) as client:
            (hold,) = (await client.get(f"{PREFIX}/why")).json()["holds"]
            sent = asyncio.create_task(client.post(f"{PREFIX}/approve", json={"id": hold["id"], "by": "ada"}))
            while not rig.governor._commands:
                await asyncio.sleep(0)
            (command,) = rig.governor._commands
            rig.governor._commands = []
            command(rig.now)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not sent.done()
            await rig.round(1)
            assert (await sent).status_code == 200
            assert [record.actor for record in rig.ledger.records(kind="answer")] == ["ada"]

    asyncio.run(story())


def test_a_task_that_is_approved_runs_and_the_record_says_who(rig):
    async def story():
        async with await asked(rig) as client:
            (hold,) = (await client.get(f"{PREFIX}/why")).json()["holds"]
            reply = await answer(rig, client, "approve", id=hold["id"], by="ada", why="it is Friday")
            assert reply.json() == {"task": "work", "count": 1, "answer": "approve"}
            await rig.round(1)
            assert rig.governor.state.bound["work-1"].pool == "on-demand"
            status = (await client.get(f"{PREFIX}/status")).json()
            assert (status["running"], status["held"], [pool["pool"] for pool in status["pools"]]) == (
                1,
                0,
                ["on-demand", "spot"],
            )
            (running,) = (await client.get(f"{PREFIX}/why")).json()["running"]
            assert running["for"]

    asyncio.run(story())


def test_a_pool_is_chosen_by_the_id_that_why_shows(rig):
    async def story():
        async with await asked(rig, interruptible=True) as client:
            (hold,) = (await client.get(f"{PREFIX}/why")).json()["holds"]
            assert "on spot" in hold["why"]
            reply = await answer(rig, client, "override", task=hold["id"], pool="on-demand", by="ada")
            assert (reply.status_code, reply.json()["pool"]) == (200, "on-demand")
            (answers,) = rig.governor.state.groups.answers.values()
            assert answers.override == "on-demand"
            # the same question asks about that pool now, and its answer is about it
            await rig.round(1)
            (again,) = (await client.get(f"{PREFIX}/why")).json()["holds"]
            assert again["id"] == hold["id"]
            assert (await answer(rig, client, "approve", id=hold["id"], by="ada")).status_code == 200
            await rig.round(1)
            assert rig.governor.state.bound["work-1"].pool == "on-demand"

    asyncio.run(story())


def test_what_is_asked_about_nothing_is_named(rig):
    async def story():
        async with await asked(rig) as client:
            reply = await client.post(f"{PREFIX}/override", json={"task": "work-1", "pool": "moon", "by": "ada"})
            assert (reply.status_code, "there is no pool 'moon'" in reply.json()["error"]) == (404, True)
            reply = await client.post(f"{PREFIX}/override", json={"task": "other-9", "pool": "spot", "by": "ada"})
            assert (reply.status_code, "no held task is 'other-9'" in reply.json()["error"]) == (404, True)
            reply = await client.get(f"{PREFIX}/nothing")
            assert reply.status_code in (404, 405)
            assert "error" in reply.json()

    asyncio.run(story())


def test_a_failure_that_nobody_foresaw_is_json_too_over_a_real_socket(caplog):
    class Broken:
        """Stands for a governor whose state nobody can read."""

        def status(self):
            raise RuntimeError("a fault of ours")

    async def story():
        api = Serving(application(Broken(), "secret"), "127.0.0.1", 0)
        api.start()
        async with httpx.AsyncClient(headers={TOKEN: "secret"}) as client:
            reply = await client.get(f"http://127.0.0.1:{api.port}{PREFIX}/status")
        await api.stop()
        return reply

    reply = asyncio.run(story())
    assert reply.status_code == 500
    assert "the governor failed at /v1/status" in reply.json()["error"]
    assert "a fault of ours" in caplog.text  # the log has the cause
