"""The loop: follow the extension, plan, commit to the ledger, instruct. In that order, always."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent.errors import BudgetTakenError, LedgerAwayError
from agent.governor import past, recovery
from agent.governor import round as rounds
from agent.governor.dispatcher import Dispatcher, as_told
from agent.governor.figures import figures
from agent.governor.holding import holds_of
from agent.governor.journal import Journal
from agent.governor.outbox import Outbox
from agent.governor.provisioner import Provisioner
from agent.governor.round import Round
from agent.governor.rulebook import Rulebook
from agent.governor.rules_in_force import RulesInForce
from agent.governor.scheduler_client import SchedulerClient
from agent.governor.shadow import shadow_round
from agent.governor.timers import Timer
from agent.ledger.ledger import Ledger
from agent.model.codec import encode
from agent.model.effects import Note
from agent.model.events import from_wire
from agent.model.holds import Hold
from agent.model.pools import Pool
from agent.model.records import Entry
from agent.model.snapshot import Budget, Policy, Running
from agent.planner.plan import VERSION, plan
from agent.pools.port import Provider, Report
from agent.state import events
from agent.state import snapshot as snapshots
from agent.state.approvals import carry_over
from agent.state.cluster import ClusterState
from agent.state.recorder import Recorder
from agent.state.stale import plan_is_stale

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

    def __init__(  # noqa: PLR0913
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
        self.outbox = Outbox(self.state, self.journal, self.scheduler_client, mode)
        self.provisioner = Provisioner(
            self.state, providers, self.scheduler_client, self.clock, self.outbox.note, self._look_up
        )
        self.dispatcher = Dispatcher(self.state, self.scheduler_client, self.provisioner)
        self.ack = 0
        self.degraded: list[str] = []
        self.warnings: list[str] = []
        #: why tasks wait, as the last plan says it
        self.holds: dict[str, Hold] = {}
        self.plan_ms: deque[float] = deque(maxlen=1_000)
        #: called when the first snapshot is in
        self.on_begun: Callable[[], None] = lambda: None
        self._commands: list[Callable[[int], None]] = []
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

    async def wait_for_lease(self, waits: Callable[[], None] = lambda: None) -> bool:
        """Take the lease once no other governor has it; False when it was stopped before.

        Args:
            waits: called once where it has to wait.
        """
        waited = False
        while not self.epoch and not await self.take():
            if self._stop:
                return False
            if not waited:
                waited = True
                waits()
            await asyncio.sleep(1)
        return True

    async def run(self) -> None:
        """Take the lease where it was not taken yet, begin with a full snapshot, and go round until stopped."""
        if not await self.wait_for_lease():
            return
        async with self.scheduler_client:
            await self._begin()
            self.on_begun()
            feeds = [self.provisioner.job(feed(self.provisioner.observed)) for feed in self.feeds]
            try:
                while not self._stop:
                    await self._round()
                    await self._follow()
                await self.outbox.carry_out(self.provisioner, self.clock())
                await self._commit(rounds.entry_of(self.state, self.clock(), self.mode))
            finally:
                for feed in feeds:
                    feed.cancel()
                if self._poll is not None:
                    # it ends by itself; cut off, the scheduler would answer into a closed connection
                    await asyncio.wait({self._poll}, timeout=2 * REST)
                    self._poll.cancel()
        await self.journal.resign()

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
        pools = [as_told(status.pool) for status in self.state.fleet.pools.values()]
        await self.scheduler_client.call("orc_instruct", pools=pools, mode=self.mode)
        seen = await self.scheduler_client.call("orc_snapshot")
        self.ack = seen["ack"]
        known = await self.provisioner.adopt()
        self.state.fleet.leases.restore(await self.journal.call(self.ledger.open_leases))
        self.outbox.put(events.begin(self.state, seen, now), self.provisioner)
        self.provisioner.recover(known, dict(seen.get("departed", ())), now)
        entry = rounds.entry_of(self.state, now, self.mode, "start")
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
            self.outbox.note(self.rules.refused())

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
            for told in reply["deltas"]:
                self.outbox.put(events.apply(self.state, from_wire(told), now), self.provisioner)
            self.ack = reply["ack"]
        commands, self._commands = self._commands, []
        for command in commands:
            command(now)

    async def _resync(self) -> None:
        await self.dispatcher.resync(self.ack, self.clock(), self.outbox)
        self._look_up()

    # ------------------------------------------------------------------ one round
    async def _round(self) -> None:
        now = self.clock()
        state = self.state
        await self.journal.renew(now)
        state.forget_quiet(now)
        if self._fold.take(now):
            self.provisioner.job(asyncio.to_thread(self.ledger.fold_wal))
        await self._turn_rules(now)
        await self.outbox.carry_out(self.provisioner, now)
        if self._show.take(now):
            await self.scheduler_client.call("orc_instruct", figures=self._figures(now))
        if state.shadow:
            asked = await shadow_round(state, self.recorder, self.journal, self.policy, self.rules.digest, now)
            self.outbox.put(asked, self.provisioner)
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
        if drawn.entry.worth_writing:
            try:
                await self._commit(drawn.entry)
            except (BudgetTakenError, LedgerAwayError) as error:
                if not self.journal.may_wait(error):
                    raise
                logger.warning("%s; planning again", error)
                state.dirty = True
                return
        rounds.take_in(state, self.recorder, drawn)
        if not await self.dispatcher.carry_out(drawn, now):
            # gone, or no room any more: the extension says which are still ready
            self.provisioner.job(self._resync())

    def _figures(self, now: int) -> dict[str, object]:
        spooled = self.ledger.spooled
        return figures(self.state, self.holds.values(), mode=self.mode, spooled=spooled, now_ms=now)

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
        self._replan_at_ms = made.replan_at_ms
        may_launch = self.mode == "govern" and not self.degraded
        entry = rounds.entry_of(self.state, now, self.mode)
        drawn = rounds.draw_up(self.state, self.recorder, snapshot, made, entry, launches=may_launch)
        if entry.placements or entry.decisions or made.acts:
            rounds.enter_snapshot(entry, snapshot, made)
        if may_launch and (made.launches or made.drains):
            entry.says["fleet"] = rounds.fleet_of(made)
        self.holds, questions = holds_of(self.state, drawn)
        for question in questions:
            self.outbox.note(Note(kind="approval", body=question.body()))
        return drawn

    async def _commit(self, entry: Entry) -> None:
        await self.journal.commit(entry)
        self.state.recorded(entry)

    # ------------------------------------------------------------------ rules and people
    async def _turn_rules(self, now: int) -> None:
        """Rules that were changed are on record, then in force; an hour that turned is another fact for them."""
        if (new := self.rules.pending()) is not None:
            await self.outbox.write([new], now)
        moved = self.rules.turn(now)
        for body in carry_over(self.state.groups.answers, self.state.groups.known, moved):
            self.outbox.answer(body, "governor")
        self.rules.look(now, self.provisioner.job, self._looked_at_rules)

    def _looked_at_rules(self, refused: Note | None) -> None:
        if refused is not None:
            self.outbox.note(refused)
        self._look_up()

    def command(self, call: Callable[[int], None]) -> None:
        """Run in the next round, before its plan."""
        self._commands.append(call)
        self.state.dirty = True
        self._look_up()
