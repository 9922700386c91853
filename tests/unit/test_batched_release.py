"""What clients let go of in thousands is done in slices, in their order."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from agent.scheduler.batched_release import MANY, PIECE, BatchedRelease


class Scheduler:
    """Remembers what it was asked for."""

    def __init__(self):
        self.did = []
        self.status = SimpleNamespace(name="running")
        self.clients = {"c": SimpleNamespace(wants_what=set()), "d": SimpleNamespace(wants_what=set())}
        self.stream_handlers = {
            "cancel-keys": self.cancel,
            "client-releases-keys": self.client_releases_keys,
            "update-graph": self.graph,
            "close-client": self.remove_client,
        }

    def cancel(self, keys, client, reason=""):
        self.did.append(("cancel", client, list(keys)))

    def client_releases_keys(self, keys, client, stimulus_id=None):
        self.did.append(("release", client, list(keys)))

    async def graph(self, client, name):
        self.did.append(("graph", client, name))

    def remove_client(self, client, stimulus_id=None):
        self.did.append(("remove", client, []))
        self.clients.pop(client, None)


def keys_of(did, what):
    return [key for kind, _, keys in did if kind == what for key in keys]


async def settle(scheduler):
    for _ in range(1000):
        await asyncio.sleep(0)


def test_few_keys_go_straight_through():
    async def run():
        scheduler = Scheduler()
        BatchedRelease(scheduler)
        scheduler.stream_handlers["cancel-keys"](keys=["a", "b"], client="c", reason="r")
        assert scheduler.did == [("cancel", "c", ["a", "b"])]

    asyncio.run(run())


def test_many_are_cut_and_all_done_in_order():
    async def run():
        scheduler = Scheduler()
        BatchedRelease(scheduler)
        keys = [f"k{n}" for n in range(10 * MANY)]
        scheduler.stream_handlers["cancel-keys"](keys=keys, client="c")
        assert scheduler.did == []
        scheduler.stream_handlers["client-releases-keys"](keys=["after"], client="c")
        await settle(scheduler)
        assert keys_of(scheduler.did, "cancel") == keys
        assert max(len(piece) for _, _, piece in scheduler.did) == PIECE
        assert scheduler.did[-1] == ("release", "c", ["after"])

    asyncio.run(run())


def test_a_new_graph_comes_after_what_its_client_asked_for_before():
    async def run():
        scheduler = Scheduler()
        BatchedRelease(scheduler)
        keys = [f"k{n}" for n in range(2 * MANY)]
        scheduler.stream_handlers["cancel-keys"](keys=keys, client="c")
        await scheduler.stream_handlers["update-graph"](client="c", name="new")
        assert keys_of(scheduler.did, "cancel") == keys
        assert scheduler.did[-1] == ("graph", "c", "new")

    asyncio.run(run())


def test_another_clients_graph_does_not_wait():
    async def run():
        scheduler = Scheduler()
        BatchedRelease(scheduler)
        scheduler.stream_handlers["cancel-keys"](keys=[f"k{n}" for n in range(2 * MANY)], client="c")
        await scheduler.stream_handlers["update-graph"](client="d", name="theirs")
        assert scheduler.did == [("graph", "d", "theirs")]

    asyncio.run(run())


def test_a_client_that_goes_is_removed_once_its_keys_are_released_however_often_it_says_so():
    async def run():
        scheduler = Scheduler()
        scheduler.clients["c"].wants_what = [SimpleNamespace(key=n) for n in range(3 * MANY)]
        BatchedRelease(scheduler)
        scheduler.stream_handlers["close-client"](client="c")
        scheduler.remove_client("c")
        await settle(scheduler)
        assert set(keys_of(scheduler.did, "release")) == set(range(3 * MANY))
        assert [kind for kind, _, _ in scheduler.did].count("remove") == 1
        assert "c" not in scheduler.clients

    asyncio.run(run())
