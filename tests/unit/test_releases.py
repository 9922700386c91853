"""Futures that are dropped together, on a real scheduler in this process."""

from __future__ import annotations

from distributed import Client, LocalCluster

from agent.runner.releases import Releases
from harness.wait import until


def test_dropped_futures_go_in_one_message_and_what_is_asked_next_comes_after_it():
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        sent = []
        theirs = client._send_to_scheduler_safe
        client._send_to_scheduler_safe = lambda message: (sent.append(message), theirs(message))
        Releases(client)
        futures = client.map(abs, range(500), key=[f"one-{n}" for n in range(500)])
        kept = futures.pop()
        del futures
        # the same key again, while its release is still on the way
        again = client.submit(abs, 1, key="one-1")
        until(lambda: len(cluster.scheduler.tasks) == 2, 10)
        assert set(cluster.scheduler.tasks) == {kept.key, again.key}
        released = [message for message in sent if message["op"] == "client-releases-keys"]
        assert sum(len(message["keys"]) for message in released) in (498, 499)
        assert len(released) < 20
