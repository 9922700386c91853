"""A governor with a real ledger, whose clock, extension and providers are the test's own."""

from __future__ import annotations

from agent.governor.governor import Governor
from agent.governor.rulebook import Rulebook
from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.ledger.verify import Report, verify
from agent.model import codec
from agent.model.events import SpecAdded, TaskEnded, TaskReady, WorkerJoined, from_wire, to_wire
from agent.model.outcomes import Result
from agent.model.snapshot import Policy
from agent.scheduler import protocol
from agent.state import events
from tests.values import pool

SPOT, SAFE = pool("spot", "spot", 0.02, provider=None), pool(usd=3.6, provider=None)


class Rig:
    """A governor whose extension says yes, and remembers what it was told."""

    def __init__(self, folder, *, rules="rules: []\n", pools=(SPOT, SAFE), providers=None, budgets=()):
        self.now = 1_000_000
        self.folder, self.pools, self.providers, self.budgets = folder, pools, providers or {}, budgets
        (folder / "rules.yaml").write_text(rules)
        self.ledger = Ledger(f"sqlite:///{folder}/ledger.db", "test")
        self.governor = self.new("test")
        self.told, self.joined, self.gone = [], [], set()

    def new(self, holder):
        """Another governor of the same scheduler."""
        made = Governor(
            scheduler="tcp://nowhere", ledger=self.ledger, pools=self.pools, budgets=self.budgets,
            rulebook=Rulebook([self.folder / "rules.yaml"]), policy=Policy(), providers=self.providers, mode="govern",
            holder=holder, clock=lambda: self.now,
        )  # fmt: skip
        made.scheduler_client.call = self.ask
        return made

    def end(self):
        """The ledger must be whole, and every plan must replay."""
        assert [fault.what for fault in verify(self.ledger, Report(), replay=True)] == []
        self.ledger.close()

    async def ask(self, handler, **said):
        self.told.append(said)
        if handler == "orc_state":
            return {"waiting": []}
        if handler == "orc_snapshot":
            return {
                "ack": 9,
                "ready": [("work-1", 0, 0, self.now, ())],
                "workers": [w for w in self.joined if w["name"] not in self.gone],
            }
        return {
            "bound": [
                [None if f"{bind['pool']}-0" in self.gone else f"tcp://{bind['pool']}"] * len(bind["keys"])
                for bind in said.get("binds", ())
            ]
        }

    def say(self, event):
        event = from_wire(to_wire(event))  # as it would arrive
        self.governor.outbox.put(events.apply(self.governor.state, event, self.now), self.governor.provisioner)
        assert self.governor.state.faults() == []

    def join(self, name, worker=None):
        worker = {
            "address": f"tcp://{name}",
            "name": worker or f"{name}-0",
            "pool": name,
            "slots": 1,
            "memory_mib": 4096,
        }
        self.joined.append({**worker, "resources": {}, "draining": False, "paused": False, "host": ""})
        self.say(WorkerJoined(self.joined[-1]))

    def spec(self, **needs):
        run = {"flow_run": "f", "root_run": "r"}
        self.say(SpecAdded(0, {"prefix": "work", "says": {protocol.NEEDS: needs, protocol.RUN: run}, "resources": {}}))

    async def run_out(self, mib):
        """A task is bound with so much memory, runs out of it, and is decided anew."""
        await self.governor.take()
        self.spec(memory_mib=mib)
        self.join("on-demand")
        self.say(TaskReady("work-1", 0, 0, self.now))
        await self.round()
        self.say(TaskEnded("work-1", Result.OUT_OF_MEMORY, "tcp://on-demand", 0, 0, 0, ()))
        self.say(TaskReady("work-1", 0, 0, self.now))
        await self.round(1)

    async def round(self, seconds=0.0):
        self.now += round(1000 * seconds)
        await self.governor._round()

    def history(self):
        """Verb and reason of each decision, oldest first."""
        with self.ledger.reading() as db:
            rows = db.execute(t.decision.select().order_by(t.decision.c.id)).all()
        return [(row.verb, codec.decode(dict, self.ledger.part(row.body))["reason"]) for row in rows]

    def outcomes(self):
        with self.ledger.reading() as db:
            return [t.RESULTS[row.result] for row in db.execute(t.outcome.select().order_by(t.outcome.c.placement))]
