"""The loop: follow the extension, plan, commit to the ledger, instruct. In that order, always."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agent.errors import BudgetTakenError, LedgerAwayError
from agent.governor import past, recovery
from agent.governor import round as rounds
from agent.governor.journal import Journal
from agent.governor.metrics import figures
from agent.governor.provisioner import Provisioner
from agent.governor.round import Round
from agent.governor.rulebook import Rulebook
from agent.governor.rules_in_force import RulesInForce
from agent.governor.scheduler_client import SchedulerClient
from agent.governor.timers import Timer
from agent.ledger.ledger import Ledger
from agent.ledger.parts import split
from agent.model.codec import digest, encode
from agent.model.effects import CopyOff, Effect, Note, RefuseTask, SeeTo
from agent.model.holds import Hold, hold_of
from agent.model.plans import Plan
from agent.model.pools import Pool
from agent.model.records import Entry
from agent.model.snapshot import Budget, Policy, Running, Snapshot
from agent.planner.plan import VERSION, plan
from agent.pools.port import Provider, Report
from agent.scheduler import protocol as p
from agent.state import events
from agent.state import snapshot as snapshots
from agent.state.approvals import Answers, carry_over
from agent.state.cluster import ClusterState
from agent.state.recorder import Recorder
from agent.state.stale import plan_is_stale
from agent.state.tasks import BoundTask

logger = logging.getLogger("orc.governor")

#: at rest, it still looks up so often, seconds
REST = 0.5
#: and shows its figures on the dashboard, ms
SHOW_MS = 1_000
#: and looks for running tasks that may be worth moving, ms
MOVE_MS = 1_000
#: and folds SQLite's log back, ms
FOLD_MS = 5_000


class Governor:
    """Governs one scheduler. `run` returns when it is stopped, fenced, or the scheduler is gone."""

    def __init__(
        self,
        *,
        scheduler: str,
        ledger: Ledger,
        pools: tuple[Pool, ...],
        budgets: tuple[Budget, ...],
        rulebook: Rulebook,
        policy: Policy,
        providers: Mapping[str, Provider],
        mode: str,
        holder: str,
        clock: Callable[[], int] | None = None,
        feeds: Sequence[Callable[[Report], Awaitable[None]]] = (),
    ) -> None:
        self.scheduler, self.ledger, self.policy = scheduler, ledger, policy
        self.mode = mode
        #: what else observes the world for as long as the governor runs: prices
        self.feeds = feeds
        self.clock = clock or (lambda: round(time.time() * 1000))
        self.state = ClusterState(pools, rulebook.rules.judge, rulebook.rules.set.facts)
        self.rules = RulesInForce(rulebook, self.state, self.clock())
        self.recorder = Recorder()
        self.journal = Journal(ledger, holder, {budget.name: budget for budget in budgets})
        self.scheduler_client = SchedulerClient(scheduler)
        self.provisioner = Provisioner(
            self.state, providers, self.scheduler_client, self.clock, self.note, self._look_up
        )
        self.ack = 0
        self.degraded: list[str] = []
        self.warnings: list[str] = []
        #: why tasks wait, as the last plan says it
        self.holds: dict[str, Hold] = {}
        self.plan_ms: deque[float] = deque(maxlen=1_000)
        #: called when the first snapshot is in
        self.on_begun: Callable[[], None] = lambda: None
        self._commands: list[Callable[[int], None]] = []
        self._effects: list[Effect] = []
        self._wake = asyncio.Event()
        self._stop = False
        self._fold, self._show = Timer(FOLD_MS, self.clock()), Timer(SHOW_MS)
        self._move, self._planned = Timer(MOVE_MS), Timer(0)
        #: time alone changes the plan then, ms
        self._replan_at_ms: int | None = None
        self._poll: asyncio.Future[dict[str, Any]] | None = None

    # ------------------------------------------------------------------ the loop
    async def take(self) -> bool:
        """Take the lease now, or say that another governor holds it."""
        epoch = await self.journal.acquire(self.clock())
        if epoch is None:
            logger.info("another governor holds %s; waiting for its lease to run out", self.scheduler)
            return False
        self.scheduler_client.epoch = epoch
        await past.recall(self.state, self.recorder, self.journal)
        return True

    async def run(self) -> None:
        """Take the lease where it was not taken yet, begin with a full snapshot, and go round until stopped."""
        while not self.epoch and not await self.take():
            if self._stop:
                return
            await asyncio.sleep(1)
        async with self.scheduler_client:
            await self._begin()
            self.on_begun()
            feeds = [self.provisioner.job(feed(self.provisioner.observed)) for feed in self.feeds]
            try:
                while not self._stop:
                    await self._round()
                    await self._follow()
                await self._commit(self._entry(self.clock()))
            finally:
                for feed in feeds:
                    feed.cancel()
                if self._poll is not None:
                    # it ends by itself; cut off, the scheduler would answer into a closed connection
                    await asyncio.wait({self._poll}, timeout=2 * REST)
                    self._poll.cancel()
        await self.journal.close()

    @property
    def epoch(self) -> int:
        """The lease's number: only the newest is obeyed. 0 before it is taken."""
        return self.scheduler_client.epoch

    @property
    def stopping(self) -> bool:
        """It was told to end."""
        return self._stop

    def stop(self) -> None:
        """End after this round."""
        self._stop = True
        self._look_up()

    def _look_up(self) -> None:
        self._wake.set()

    async def _begin(self) -> None:
        """Full snapshot; what a crash left open is closed, and only that."""
        now = self.clock()
        seen = await self.scheduler_client.call("orc_snapshot")
        self.degraded, self.warnings = list(seen["degraded"]), list(seen["warnings"])
        pools = [_as_told(status.pool) for status in self.state.fleet.pools.values()]
        await self.scheduler_client.call("orc_instruct", pools=pools, mode=self.mode)
        seen = await self.scheduler_client.call("orc_snapshot")
        self.ack = seen["ack"]
        known = await self.provisioner.adopt()
        self.state.fleet.leases.restore(await self.journal.call(self.ledger.open_leases))
        self._do(events.begin(self.state, seen, now))
        self.provisioner.recover(known, dict(seen.get("departed", ())), now)
        entry = self._entry(now, "start")
        entry.says.update(
            scheduler=self.scheduler,
            mode=self.mode,
            degraded=self.degraded,
            rules=self.rules.digest,
            planner=VERSION,
            pools=[encode(status.pool).decode() for status in self.state.fleet.pools.values()],
        )
        opened = await self.journal.call(self.ledger.open_placements)
        draft = recovery.recover(self.state, self.recorder, opened, seen, entry, now)
        await self._commit(entry)
        self.recorder.keep(draft)
        if self.rules.rulebook.wrong:
            self.note(self.rules.refused())

    async def _follow(self) -> None:
        # a long poll that something else has overtaken stays out and is read in a later round
        follow = self._poll = self._poll or asyncio.ensure_future(
            self.scheduler_client.call("orc_follow", ack=self.ack, wait=REST)
        )
        wake: asyncio.Future[Any] = asyncio.ensure_future(self._wake.wait())
        done, _ = await asyncio.wait({follow, wake}, return_when=asyncio.FIRST_COMPLETED)
        self._wake.clear()
        wake.cancel()
        now = self.clock()
        if follow in done:
            self._poll = None
            reply = follow.result()
            if reply.get("gap"):
                logger.warning("deltas were lost; starting again from a full snapshot")
                return await self._begin()
            for delta in reply["deltas"]:
                self._do(events.apply(self.state, delta, now))
            self.ack = reply["ack"]
        commands, self._commands = self._commands, []
        for command in commands:
            command(now)

    def _do(self, effects: Iterable[Effect]) -> None:
        """See to what an event asks for: launched workers that left at once, the rest in the next round."""
        for effect in effects:
            if isinstance(effect, SeeTo):
                self.provisioner.see_to(effect)
            else:
                self._effects.append(effect)

    # ------------------------------------------------------------------ one round
    async def _round(self) -> None:
        now = self.clock()
        state = self.state
        await self.journal.renew(now)
        state.forget_quiet(now)
        if self._fold.take(now):
            self.provisioner.job(asyncio.to_thread(self.ledger.checkpoint))
        await self._turn_rules(now)
        await self._carry_out(now)
        if self._show.take(now):
            await self.scheduler_client.call("orc_instruct", figures=figures(self))
        if state.shadow:
            await self._shadow(now)
        running = self._running(now)
        movable = any(not task.leaves_for for task in running)
        unrecorded = state.ended or state.fleet.leases.dirty
        if not (
            state.dirty or movable or unrecorded or plan_is_stale(state, now, self._planned.last_ms, self._replan_at_ms)
        ):
            return
        state.dirty = False
        self._planned.restart(now)
        drawn = await self._draw_up(now, running)
        if _worth_writing(drawn.entry):
            try:
                await self._commit(drawn.entry)
            except (BudgetTakenError, LedgerAwayError) as error:
                if not self.journal.may_wait(error):
                    raise
                logger.warning("%s; planning again", error)
                state.dirty = True
                return
        rounds.take_in(state, self.recorder, drawn)
        await self._instruct(drawn, now)

    def _running(self, now: int) -> tuple[Running, ...]:
        if self.mode != "govern":
            return ()
        look = self._move.due(now) or self.state.fleet.came
        if look:
            self._move.restart(now)
        return self.state.running(now, look)

    async def _draw_up(self, now: int, running: Sequence[Running]) -> Round:
        begin = time.perf_counter()
        groups = self.state.live_groups()
        budgets = await self.journal.budgets() if any(group.needs.budget for group in groups) else ()
        snapshot = snapshots.take(
            self.state, now, self.policy, groups, running=running, budgets=budgets, rules_digest=self.rules.digest
        )
        made = plan(snapshot)
        self.plan_ms.append((time.perf_counter() - begin) * 1000)
        self._replan_at_ms = made.look_ms
        may_launch = self.mode == "govern" and not self.degraded
        entry = self._entry(now)
        drawn = rounds.draw_up(self.state, self.recorder, snapshot, made, entry, launches=may_launch)
        if entry.placements or entry.decisions or made.acts:
            _enter_snapshot(entry, snapshot, made)
        if may_launch and (made.launches or made.drains):
            entry.says["fleet"] = rounds.fleet_of(made)
        self._hold(drawn, now)
        return drawn

    def _hold(self, drawn: Round, now: int) -> None:
        """Say why what waits does, and which questions to people are open."""
        groups = {group.id: group for group in drawn.snapshot.groups}
        holds: dict[str, Hold] = {}
        for wait in drawn.plan.waits:
            group, decision, approval = groups[wait.group], drawn.plan.decisions[wait.decision], ""
            if wait.reason == "approval" and decision.pool is not None:
                rules = tuple(verdict.rule for verdict in group.verdicts if verdict.verb == "escalate")
                asked, new = self.state.approvals.ask(group, decision.pool, rules, now)
                approval = asked.id
                if new:
                    self.note(Note(kind="approval", body=asked.body()))
            holds[wait.group + wait.reason] = hold_of(group, wait, decision, approval)
        self.holds = holds
        for closed in self.state.approvals.withdraw(lambda group: group in self.state.waiting.by_group):
            self.note(Note(kind="approval", body=closed.body()))

    def _entry(self, now: int, kind: str = "round") -> Entry:
        """An entry with everything that is not on record yet."""
        outcomes = list({outcome.placement: outcome for outcome in self.state.ended}.values())
        leases = self.state.fleet.leases.unrecorded()
        return Entry(kind=kind, at_ms=now, mode=self.mode, outcomes=outcomes, leases=leases)

    async def _commit(self, entry: Entry) -> None:
        await self.journal.commit(entry)
        self.state.recorded(entry)

    # ------------------------------------------------------------------ after the commit
    async def _instruct(self, drawn: Round, now: int) -> None:
        orders = rounds.orders_of(self.state, drawn)
        for key, pool, _ in orders.leave:
            self.state.told_to_leave(key, pool, now)
        if orders or drawn.sendings:
            reply = await self.scheduler_client.call(
                "orc_instruct", binds=[sending.message() for sending in drawn.sendings], **orders.message()
            )
            bound = [
                rounds.sent(self.state, sending, where, now)
                for sending, where in zip(drawn.sendings, reply["bound"], strict=False)
            ]
            if not all(bound):
                # gone, or no room any more: the extension says which are still ready
                self.provisioner.job(self._resync())
        for drained in drawn.plan.drains:
            self.provisioner.job(self.provisioner.drain(drained))
        for order in drawn.launches:
            self.provisioner.job(self.provisioner.launch(order))

    async def _resync(self) -> None:
        seen = await self.scheduler_client.call("orc_snapshot")
        now = self.clock()
        if seen["ack"] >= self.ack:
            # or the next plan would send to the same worker that is not there, until its going has been heard of
            self.state.fleet.sighted(seen["workers"])
        for key, *about in seen["ready"]:
            if key not in self.state.waiting.group_of:
                self._do(events.apply(self.state, (p.READY, key, *about), now))
        self.state.dirty = True
        self._look_up()

    async def _shadow(self, now: int) -> None:
        """Plan tasks that run where Dask put them, as if they were held; record it, do nothing of it."""
        tasks = self.state.shadow_groups(now)
        groups = [self.state.groups.now(name, [task for task, _ in found]) for name, found in sorted(tasks.items())]
        snapshot = snapshots.take(self.state, now, self.policy, groups, rules_digest=self.rules.digest)
        made = plan(snapshot)
        entry = Entry(kind="round", at_ms=now, mode="shadow")
        _enter_snapshot(entry, snapshot, made)
        draft = self.recorder.draft(entry, reversed(self.state.specs))
        placed = []
        for group in groups:
            decision = next(d for d in made.decisions if d.group == group.id)
            number, pool = draft.decided(decision, group.team), decision.pool or ""
            price = self.state.fleet.price(pool, now)
            placed += [
                BoundTask(task, draft.placed(number, task), group.id, pool, address, now, 0, price)
                for task, address in tasks[group.id]
            ]
        await self._commit(entry)
        self.recorder.keep(draft)
        for bound in placed:
            self.state.sent(bound)

    # ------------------------------------------------------------------ rules, notes, people
    async def _turn_rules(self, now: int) -> None:
        """Rules that were changed are on record, then in force; an hour that turned is another fact for them."""
        if (new := self.rules.pending()) is not None:
            await self._write([new], now)
        moved = self.rules.turn(now)
        for body in carry_over(self.state.groups.answers, self.state.groups.known, moved):
            self.answer(body, "governor")
        self.rules.look(now, self.provisioner.job, self._looked_at_rules)

    def _looked_at_rules(self, refused: Note | None) -> None:
        if refused is not None:
            self.note(refused)
        self._look_up()

    async def _carry_out(self, now: int) -> None:
        """What people and providers said is on record before it has an effect."""
        effects, self._effects = self._effects, []
        wrong = [effect for effect in effects if isinstance(effect, RefuseTask)]
        notes = [effect for effect in effects if isinstance(effect, Note)]
        if wrong:
            logger.warning("%d tasks are refused: %s", len(wrong), wrong[0].why)
            some = [str(task.key) for task in wrong[:100]]
            notes.append(Note(kind="refusal", body={"refused": some, "count": len(wrong), "why": wrong[0].why}))
        await self._write(notes, now)
        if wrong:
            refuse = [(task.key, "SettingError", task.why) for task in wrong]
            await self.scheduler_client.call("orc_instruct", refuse=refuse)
        for effect in effects:
            if isinstance(effect, CopyOff):
                self.provisioner.job(self.scheduler_client.copy_off(effect.address))

    async def _write(self, notes: Iterable[Note], now: int) -> None:
        """Each kind of note, from each author, is a record of its own."""
        by_author: dict[tuple[str, str], list[Any]] = {}
        for note in notes:
            by_author.setdefault((note.kind, note.actor), []).append(dict(note.body))
        for (kind, actor), bodies in by_author.items():
            await self._commit(Entry(kind=kind, at_ms=now, mode=self.mode, actor=actor, says={"notes": bodies}))

    def command(self, call: Callable[[int], None]) -> None:
        """Run in the next round, before its plan."""
        self._commands.append(call)
        self.state.dirty = True
        self._look_up()

    def note(self, note: Note) -> None:
        """Put something on record with the next commit."""
        self._effects.append(note)

    def answer(self, body: Mapping[str, Any], actor: str) -> None:
        """A person approved, rejected or overrode: on record first, then in force, also after a restart."""
        self.note(Note(kind="answer", body=body, actor=actor))
        for group in body["groups"]:
            self.state.groups.answers.setdefault(group, Answers()).take(body)
        self.state.dirty = True


def _worth_writing(entry: Entry) -> bool:
    return bool(entry.placements or entry.outcomes or entry.leases or entry.decisions or entry.says)


def _enter_snapshot(entry: Entry, snapshot: Snapshot, made: Plan) -> None:
    """What the plan was made from, and the plan's digest: so it can be made again."""
    head, parts = split(snapshot)
    entry.says.update(head=head, plan=digest(encode(made)))
    entry.parts = parts


def _as_told(pool: Pool) -> dict[str, Any]:
    """A pool as the extension is told."""
    return {
        "name": pool.name,
        "selector": asdict(pool.selector),
        "cpus": pool.cpus,
        "memory_mib": pool.memory_mib,
        "gpus": pool.gpus,
        "safe": pool.market != "spot",
    }
