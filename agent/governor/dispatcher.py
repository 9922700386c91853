"""After the commit: what a round says is told to the extension and to the providers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from agent.governor import round as rounds
from agent.governor.outbox import Outbox
from agent.governor.provisioner import Provisioner
from agent.governor.round import Round
from agent.governor.scheduler_client import SchedulerClient
from agent.model.events import TaskReady
from agent.model.pools import Pool
from agent.state import events
from agent.state.cluster import ClusterState


class Dispatcher:
    """Sends what is on record."""

    def __init__(self, state: ClusterState, client: SchedulerClient, provisioner: Provisioner) -> None:
        self.state, self.client, self.provisioner = state, client, provisioner

    async def carry_out(self, drawn: Round, now_ms: int) -> bool:
        """Instruct the extension, launch and drain. Whether every task found its worker."""
        orders = rounds.orders_of(self.state, drawn)
        for key, pool, _ in orders.leave:
            self.state.told_to_leave(key, pool, now_ms)
        bound = []
        if orders or drawn.sendings:
            binds = [sending.message() for sending in drawn.sendings]
            reply = await self.client.call("orc_instruct", binds=binds, **orders.message())
            bound = [
                rounds.sent(self.state, sending, where, now_ms)
                for sending, where in zip(drawn.sendings, reply["bound"], strict=False)
            ]
        for drained in drawn.plan.drains:
            self.provisioner.job(self.provisioner.drain(drained))
        for order in drawn.launches:
            self.provisioner.job(self.provisioner.launch(order))
        return all(bound)

    async def resync(self, ack: int, now_ms: int, outbox: Outbox) -> None:
        """Hear from the extension which tasks are still ready, where a bind found its worker gone or full."""
        seen = await self.client.call("orc_snapshot")
        if seen["ack"] >= ack:
            # or the next plan would send to the same worker that is not there, until its going has been heard of
            self.state.fleet.sighted(seen["workers"])
        for told in seen["ready"]:
            ready = TaskReady(*told)
            if ready.key not in self.state.waiting.group_of:
                outbox.put(events.apply(self.state, ready, now_ms), self.provisioner)
        self.state.dirty = True


def as_told(pool: Pool) -> dict[str, Any]:
    """A pool as the extension is told."""
    return {
        "name": pool.name,
        "selector": asdict(pool.selector),
        "cpus": pool.cpus,
        "memory_mib": pool.memory_mib,
        "gpus": pool.gpus,
        "safe": pool.market != "spot",
    }
