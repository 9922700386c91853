"""The loop: follow the extension, plan, commit to the ledger, instruct. In that order, always."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from agent.errors import LedgerAwayError
from agent.governor.metrics import figures
from agent.governor.provisioner import Provisioner
from agent.governor.recovery import reconcile
from agent.governor.rulebook import Refused as RulesRefused
from agent.governor.rulebook import Rulebook, Rules
from agent.governor.scheduler_client import SchedulerClient
from agent.ledger.ledger import Ledger
from agent.ledger.parts import split
from agent.ledger.rows import BudgetTakenError
from agent.model.codec import digest, encode
from agent.model.plans import Plan
from agent.model.pools import Pool
from agent.model.records import Ended, Entry, Lease
from agent.model.snapshot import Budget, Group, Policy, PoolState, Running, Snapshot
from agent.planner.estimate import by_shape, estimate, statistics_of
from agent.planner.plan import VERSION, plan
from agent.planner.room import share
from agent.pools.port import Provider, Report
from agent.scheduler import protocol as p
from agent.state.answers import carried
from agent.state.cluster import Bound, ClusterState
from agent.state.groups import Task, Word
from agent.state.recorder import Held, Recorder, held

logger = logging.getLogger("orc.governor")

#: another governor may take over when this one was not seen for so long
STALE_MS = 10_000
#: at rest, it still looks up so often, seconds
REST = 0.5
#: and renews its lease in the ledger, ms
RENEW_MS = 3_000
#: and shows its figures on the dashboard, ms
SHOW_MS = 1_000
#: and looks for running tasks that may be worth moving, ms
MOVE_MS = 1_000
#: and folds SQLite's log back, ms
FOLD_MS = 5_000
#: and looks whether the rule files have changed, ms
LOOK_MS = 1_000


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
        self.declared_budgets = {b.name: b for b in budgets}
        self.rulebook, self.mode, self.holder = rulebook, mode, holder
        #: what else observes the world for as long as the governor runs: prices
        self.feeds = feeds
        self.clock = clock or (lambda: round(time.time() * 1000))
        self.state = ClusterState(pools, rulebook.rules.judge, rulebook.rules.set.facts)
        self.recorder = Recorder(self.state)
        self.scheduler_client = SchedulerClient(scheduler)
        self.provisioner = Provisioner(
            self.state, providers, self.scheduler_client, self.clock, self.say, self._look_up
        )
        self.ack = 0
        self.degraded: list[str] = []
        self.warnings: list[str] = []
        self.holds: dict[str, Held] = {}
        self.plan_ms: deque[float] = deque(maxlen=1_000)
        self.commit_ms: deque[float] = deque(maxlen=1_000)
        self._commands: list[Callable[[int], None]] = []
        self._says: list[dict[str, Any]] = []
        self._wake = asyncio.Event()
        self._stop = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="orc-ledger")
        self._renewed_ms = 0
        self._folded_ms = self._looked_ms = self.clock()
        self._looking = False
        self._new_rules: Rules | None = None
        self._asked: list[tuple[int, Pool, str]] = []
        self._shown_ms = 0
        #: when running tasks that may be worth moving were looked for
        self._moved_ms = 0
        #: called when the first snapshot is in
        self.on_begun: Callable[[], None] = lambda: None
        self._poll: asyncio.Future[dict[str, Any]] | None = None

    # ------------------------------------------------------------------ the loop
    async def take(self) -> bool:
        """Take the lease now, or say that another governor holds it."""
        epoch = await self._try_to_take()
        if epoch is not None:
            await self._taken(epoch)
        return epoch is not None

    async def run(self) -> None:
        """Take the lease where it was not taken yet, begin with a full snapshot, and go round until stopped."""
        if not self.epoch:
            await self._take()
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
        await self._write(self.ledger.resign)

    @property
    def epoch(self) -> int:
        """The lease's number: only the newest is obeyed. 0 before it is taken."""
        return self.scheduler_client.epoch

    def stop(self) -> None:
        """End after this round."""
        self._stop = True
        self._look_up()

    def _look_up(self) -> None:
        self._wake.set()

    async def _take(self) -> None:
        while (epoch := await self._try_to_take()) is None:
            if self._stop:
                return
            await asyncio.sleep(1)
        await self._taken(epoch)

    async def _taken(self, epoch: int) -> None:
        self.scheduler_client.epoch = epoch
        view, recorder = self.state, self.recorder
        recorder.next_decision, recorder.next_placement, view.fleet.next_lease, recorder.next_run = await self._write(
            self.ledger.next_ids
        )
        await self._write(
            self.ledger.declare_budgets, {b.name: b.limit_usd_micros for b in self.declared_budgets.values()}
        )
        for record in await self._write(self.ledger.records, 0, 10_000, "said"):
            for said in record.body["said"]:
                self._heard(said)
        for run in await self._write(self.ledger.runs):
            recorder.runs[run.flow_run] = run.no
        roots: list[str] = []
        for task_class, pool, result, start, ran, root in await self._write(lambda: list(self.ledger.executions())):
            if result == "done" and ran:
                view.statistics.record_runtime(task_class, pool, start + ran, ran, root)
                roots.append(root)
        for root in dict.fromkeys(roots):
            view.statistics.close_run(root)

    async def _try_to_take(self) -> int | None:
        try:
            epoch: int | None = await self._write(self.ledger.take, self.holder, self.clock(), STALE_MS)
        except LedgerAwayError as error:
            if self.ledger.spool is None:
                raise
            logger.warning("%s; nobody can take over until it is back", error)
            return None
        if epoch is None:
            logger.info("another governor holds %s; waiting for its lease to run out", self.scheduler)
        return epoch

    async def _begin(self) -> None:
        """Full snapshot; what a crash left open is closed, and only that."""
        now = self.clock()
        state = await self.scheduler_client.call("orc_snapshot")
        self.degraded, self.warnings = list(state["degraded"]), list(state["warnings"])
        await self.scheduler_client.call(
            "orc_instruct", pools=[self._size(view.pool) for view in self.state.fleet.pools.values()], mode=self.mode
        )
        state = await self.scheduler_client.call("orc_snapshot")
        self.ack = state["ack"]
        known = await self.provisioner.adopt()
        for lease in await self._write(self.ledger.open_leases):
            self.state.fleet.leases[lease.id] = lease
        self.state.begin(state, now)
        self.provisioner.reconcile(known, dict(state.get("departed", ())), now)
        entry = self._entry(now, "start")
        entry.says.update(
            scheduler=self.scheduler,
            mode=self.mode,
            degraded=self.degraded,
            rules=self.rulebook.rules.digest,
            planner=VERSION,
            pools=[encode(v.pool).decode() for v in self.state.fleet.pools.values()],
        )
        reconcile(self.state, self.recorder, await self._write(self.ledger.open_placements), state, entry, now)
        await self._commit(entry)
        if self.rulebook.wrong:
            self._rules_refused()

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
                self.state.apply(delta, now)
            self.ack = reply["ack"]
            self.provisioner.end_left()
        commands, self._commands = self._commands, []
        for command in commands:
            command(now)

    async def _write(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._writer, partial(call, *arguments))

    # ------------------------------------------------------------------ one round
    async def _round(self) -> None:
        now = self.clock()
        view = self.state
        view.forget_quiet(now)
        if now - self._folded_ms > FOLD_MS:
            self._folded_ms = now
            self.provisioner.job(asyncio.to_thread(self.ledger.checkpoint))
        await self._refuse_wrong()
        await self._judge_again(now)
        await self._write_words(now)
        if now - self._shown_ms > SHOW_MS:
            self._shown_ms = now
            await self.scheduler_client.call("orc_instruct", figures=figures(self))
        if view.shadow:
            await self._shadow(now)
        running: tuple[Running, ...] = ()
        if self.mode == "govern":
            look = view.fleet.came or now - self._moved_ms > MOVE_MS
            self._moved_ms = now if look else self._moved_ms
            running = view.running(now, look)
        movable = any(not task.leaves_for for task in running)
        if not (
            view.dirty
            or movable
            or view.ended
            or view.fleet.changed_leases
            or self._says
            or view.news
            or self._due(now)
        ):
            if now - self._renewed_ms > RENEW_MS:
                self._renewed_ms = now
                await self._write(self.ledger.seen, now)
            return
        view.dirty = False
        begin = time.perf_counter()
        snapshot = await self._snapshot(now, view.live_groups(), running)
        made = plan(snapshot)
        self.plan_ms.append((time.perf_counter() - begin) * 1000)
        entry = self._entry(now)
        binds = self._decide(snapshot, made, entry)
        if entry.placements or entry.decisions or made.acts:
            head, parts = split(snapshot)
            entry.says.update(head=head, plan=digest(encode(made)))
            entry.parts = parts
        self._plan_launches(made, now, entry)
        if self._worth_writing(entry):
            try:
                await self._commit(entry)
            except (BudgetTakenError, LedgerAwayError) as error:
                if isinstance(error, LedgerAwayError) and self.ledger.spool is None:
                    raise
                logger.warning("%s; planning again", error)
                for bind in binds:
                    for task in bind.tasks:
                        view.back(task, now)
                return
        await self._instruct(made, binds, now)

    def _worth_writing(self, entry: Entry) -> bool:
        return bool(entry.placements or entry.outcomes or entry.leases or entry.decisions or entry.says)

    def _due(self, now: int) -> bool:
        """Whether time alone may change the plan."""
        for state in self.state.fleet.pools.values():
            if self.state.ready and state.retry_ms and state.retry_ms <= now:
                return True
        if self.state.ready and now - self._renewed_ms > 1_000:
            self._renewed_ms = now
            return True
        idle = [
            live
            for live in self.state.fleet.live.values()
            if live.idle_since_ms is not None
            and not live.counts.draining
            and live.counts.pool in self.state.fleet.pools
        ]
        return (
            any(
                now - (live.idle_since_ms or 0) >= self.state.fleet.pools[live.counts.pool].pool.idle_ms
                for live in idle
            )
            and now - self._renewed_ms > 1_000
        )

    # ------------------------------------------------------------------ rules
    async def _judge_again(self, now: int) -> None:
        """Rules that were changed are on record, then in force; an hour that turned is another fact for them."""
        if self._new_rules is not None:
            new, self._new_rules = self._new_rules, None
            said = {
                "rules_in_force": new.digest,
                "count": new.count,
                "before": self.rulebook.rules.digest,
                **asdict(self.rulebook.change(new)),
            }
            await self._commit(Entry(kind="said", at_ms=now, mode=self.mode, says={"said": [said]}))
            logger.info("%d rules are in force, digest %s", new.count, new.digest[:12])
            moved = self.state.judge_again(new.judge, new.set.facts, now)
            self.rulebook.swap(new)
        else:
            moved = self.state.turn_hour(now)
        for word in carried(self.state.groups.words, self.state.groups.known, moved):
            self.answer(word)
        if now - self._looked_ms >= LOOK_MS and not self._looking and self._new_rules is None:
            self._looked_ms, self._looking = now, True
            self.provisioner.job(self._look_at_rules())

    async def _look_at_rules(self) -> None:
        wrong = self.rulebook.wrong
        try:
            found = await asyncio.to_thread(self.rulebook.look)
        finally:
            self._looking = False
        if isinstance(found, RulesRefused):
            self._rules_refused()
        elif found is not None:
            self._new_rules = found
            self._look_up()
        elif wrong and not self.rulebook.wrong:
            logger.info("the rule files are right again, and as they are in force")

    def _rules_refused(self) -> None:
        """Files that are wrong are said aloud; the rules in force stay."""
        logger.error("the rule files are refused and the rules in force stay: %s", self.rulebook.wrong)
        self.say({"rules_refused": self.rulebook.wrong, "in_force": self.rulebook.rules.digest})

    async def _write_words(self, now: int) -> None:
        """What people and providers said is on record before it has an effect."""
        said, self._says = [*self._says, *self.state.news], []
        self.state.news = []
        if said:
            await self._commit(Entry(kind="said", at_ms=now, mode=self.mode, says={"said": said}))
        leaving, self.state.leaving = self.state.leaving, []
        for address in leaving:
            self.provisioner.job(self.scheduler_client.copy_off(address))

    async def _snapshot(self, now: int, groups: tuple[Group, ...], running: tuple[Running, ...] = ()) -> Snapshot:
        budgets: tuple[Budget, ...] = ()
        if any(group.needs.budget for group in groups):
            budgets = await self._budgets()
        return Snapshot(
            now_ms=now,
            planner=VERSION,
            rules_digest=self.rulebook.rules.digest,
            seed=0,
            policy=self.policy,
            pools=self.state.pool_states(now),
            groups=groups,
            statistics=self.state.statistics.of_classes(
                {g.task_class for g in (*groups, *(task.group for task in running))}
            ),
            budgets=budgets,
            usage=self.state.usage(groups),
            runs=self.state.runs(now),
            running=running,
        )

    async def _budgets(self) -> tuple[Budget, ...]:
        """Every declared budget as it stands; closed while the database is away, when nobody can know."""
        declared = sorted(self.declared_budgets.items())
        try:
            stored = await self._write(self.ledger.budgets)
        except LedgerAwayError:
            return tuple(replace(budget, closed=True) for _, budget in declared)
        return tuple(
            replace(stored[name], max_runtime_ms=b.max_runtime_ms, closed=self.ledger.away)
            for name, b in declared
            if name in stored
        )

    def _decide(self, snapshot: Snapshot, made: Plan, entry: Entry) -> list[_Sending]:
        """Turn the plan's groups into tasks; record decisions that say something new."""
        groups = {group.id: group for group in snapshot.groups}
        states = {state.pool.name: state for state in snapshot.pools}
        statistics = statistics_of(snapshot)
        numbers = {at: self.recorder.decided(decision, entry) for at, decision in enumerate(made.decisions)}
        self.holds = {w.group + w.reason: held(groups[w.group], w, made.decisions[w.decision]) for w in made.waits}
        out = []
        for bind in made.binds:
            group, state = groups[bind.group], states[bind.pool]
            number = numbers[bind.decision]
            tasks = self.state.take(bind)
            ids = [self.recorder.placed(number, task, entry, bind.budget, bind.reserve_usd_micros) for task in tasks]
            guess = estimate(group, bind.pool, statistics, self.policy.deadline_sigmas)
            out.append(
                _Sending(
                    group,
                    state,
                    bind.ahead,
                    tasks,
                    ids,
                    max(1, guess.mean_ms - group.done_ms),
                    self.state.load(group, bind.pool),
                )
            )
        return out

    def _plan_launches(self, made: Plan, now: int, entry: Entry) -> None:
        """Leases for the workers that will be asked for, on record before they are."""
        self._asked = []
        if self.mode != "govern" or self.degraded:
            return
        for launch in made.launches:
            pool = self.state.fleet.pools[launch.pool].pool
            self._asked += [self.provisioner.lease(pool, now, launch.why) for _ in range(launch.count)]
        entry.leases = sorted(
            {**{x.id: x for x in entry.leases}, **self._changed_leases()}.values(), key=lambda x: x.id
        )
        if made.launches or made.drains:
            entry.says["fleet"] = {
                "launch": [asdict(x) for x in made.launches],
                "drain": [asdict(x) for x in made.drains],
            }

    def _entry(self, now: int, kind: str = "round") -> Entry:
        view = self.state
        entry = Entry(kind=kind, at_ms=now, mode=self.mode)
        entry.outcomes, view.ended = view.ended, []
        entry.leases = list(self._changed_leases().values())
        return entry

    def _changed_leases(self) -> dict[int, Lease]:
        changed = {id: self.state.fleet.leases[id] for id in sorted(self.state.fleet.changed_leases)}
        self.state.fleet.changed_leases.clear()
        return changed

    async def _commit(self, entry: Entry) -> None:
        entry.outcomes = list({o.placement: o for o in entry.outcomes}.values())
        begin = time.perf_counter()
        try:
            await self._write(self.ledger.append, entry)
        except (BudgetTakenError, LedgerAwayError):
            self.state.ended = [*entry.outcomes, *self.state.ended]
            self.state.fleet.changed_leases.update(lease.id for lease in entry.leases)
            raise
        self._renewed_ms = entry.at_ms
        self.commit_ms.append((time.perf_counter() - begin) * 1000)
        for lease in entry.leases:
            if lease.ended_ms is not None:
                self.state.fleet.leases.pop(lease.id, None)

    # ------------------------------------------------------------------ after the commit
    async def _instruct(self, made: Plan, sendings: list[_Sending], now: int) -> None:
        address = {state.counts.name: a for a, state in self.state.fleet.live.items()}
        drain = [address[d.worker] for d in made.drains if d.worker in address]
        withdraw = [address[w.worker] for w in made.withdraws if w.worker in address]
        refuse = [
            (task.key, "RejectedError" if r.rejected else "NeedUnmetError", r.why)
            for r in made.refusals
            for task in self.state.ready.get(r.group, {}).values()
        ]
        keys = {bound.placement: key for key, bound in self.state.bound.items()} if made.moves else {}
        leave = []
        for move in made.moves:
            if (key := keys.get(move.placement)) is not None:
                leave.append((key, move.why))
                self.state.told_to_leave(key, move.pool, now)
        if sendings or drain or withdraw or refuse or leave:
            binds = [self._message(sending) for sending in sendings]
            reply = await self.scheduler_client.call(
                "orc_instruct", binds=binds, drain=drain, withdraw=withdraw, refuse=refuse, leave=leave
            )
            for sending, where in zip(sendings, reply["bound"], strict=False):
                self._sent(sending, where, now)
        for drained in made.drains:
            self.provisioner.job(self.provisioner.drain(drained))
        for id, pool, worker in self._asked:
            self.provisioner.job(self.provisioner.launch(id, pool, worker))

    @staticmethod
    def _message(sending: _Sending) -> dict[str, Any]:
        cpus, memory, gpus = sending.load
        return {
            "pool": sending.state.pool.name,
            "cpus": cpus,
            "memory_mib": memory,
            "gpus": gpus,
            "ahead": sending.ahead,
            "keys": [task.key for task in sending.tasks],
        }

    def _sent(self, sending: _Sending, where: list[str | None], now: int) -> None:
        for task, id, address in zip(sending.tasks, sending.ids, where, strict=True):
            if address is None:
                self.state.ended.append(Ended(placement=id, result="not sent"))
                self.state.dirty = True
                continue
            price = sending.state.usd_micros_per_hour
            self.state.sent(
                Bound(
                    task,
                    id,
                    sending.group.id,
                    sending.state.pool.name,
                    address,
                    now,
                    sending.mean_ms,
                    price,
                    sending.load,
                )
            )
        if any(address is None for address in where):
            # gone, or no room any more: the extension says which are still ready
            self.provisioner.job(self._resync())

    async def _resync(self) -> None:
        state = await self.scheduler_client.call("orc_snapshot")
        now = self.clock()
        if state["ack"] >= self.ack:
            # or the next plan would send to the same worker that is not there, until its going has been heard of
            self.state.fleet.seen(state["workers"])
        for key, *about in state["ready"]:
            if key not in self.state.group_of:
                self.state.apply((p.READY, key, *about), now)
        self._look_up()

    async def _shadow(self, now: int) -> None:
        """Plan tasks that run where Dask put them, as if they were held; record it, do nothing of it."""
        tasks = self.state.shadow_groups(now)
        groups = tuple(
            self.state.groups.now(name, [task for task, _ in found]) for name, found in sorted(tasks.items())
        )
        snapshot = await self._snapshot(now, groups)
        made = plan(snapshot)
        entry = Entry(kind="round", at_ms=now, mode="shadow")
        head, parts = split(snapshot)
        entry.says.update(head=head, plan=digest(encode(made)))
        entry.parts = parts
        for group in groups:
            decision = next(d for d in made.decisions if d.group == group.id)
            number = self.recorder.decided(decision, entry)
            for task, address in tasks[group.id]:
                pool, placement = decision.pool or "", self.recorder.placed(number, task, entry)
                price = self.state.fleet.price(pool, now)
                self.state.sent(Bound(task, placement, group.id, pool, address, now, 0, price))
        await self._commit(entry)

    async def _refuse_wrong(self) -> None:
        wrong, self.state.wrong = self.state.wrong, []
        if wrong:
            logger.warning("%d tasks are refused: %s", len(wrong), wrong[0][1])
            self.say({"refused": [str(key) for key, _ in wrong[:100]], "count": len(wrong), "why": wrong[0][1]})
            await self.scheduler_client.call("orc_instruct", refuse=[(key, "SettingError", why) for key, why in wrong])

    @staticmethod
    def _size(pool: Pool) -> dict[str, Any]:
        return {
            "name": pool.name,
            "selector": asdict(pool.selector),
            "cpus": pool.cpus,
            "memory_mib": pool.memory_mib,
            "gpus": pool.gpus,
            "safe": pool.market != "spot",
        }

    # ------------------------------------------------------------------ what people say
    def command(self, call: Callable[[int], None]) -> None:
        """Run in the next round, before its plan."""
        self._commands.append(call)
        self.state.dirty = True
        self._look_up()

    def say(self, what: dict[str, Any]) -> None:
        """Put something on record with the next commit."""
        self._says.append(what)

    def answer(self, said: dict[str, Any]) -> None:
        """A person approved, rejected or overrode: on record first, then in force, also after a restart."""
        self.say(said)
        self._heard(said)

    def _heard(self, said: Mapping[str, Any]) -> None:
        if "starved" in said:
            self.state.starved(said["starved"], said["mib"])
        for group in said.get("groups", ()):
            word = self.state.groups.words.setdefault(group, Word())
            if "override" in said:
                word.override = said["override"]
            elif said.get("answer") == "approve":
                word.approved, word.approved_pools = tuple(said["rules"]), (*word.approved_pools, said["pool"])
                word.approved_by, word.approved_usd_micros, word.rejected_by = said["by"], said.get("usd_micros"), None
            elif said.get("answer") == "reject":
                word.rejected_by = said["by"]

    def estimate_of(self, group: Group, state: PoolState) -> tuple[int, float]:
        """Expected ms and share of a worker, for people."""
        pools = [view.pool for view in self.state.fleet.pools.values()]
        statistics = by_shape(self.state.statistics.of_classes({group.task_class}), pools)
        return estimate(group, state.pool.name, statistics, self.policy.deadline_sigmas).median_ms, share(group, state)


@dataclass(slots=True)
class _Sending:
    group: Group
    state: PoolState
    ahead: int
    tasks: list[Task]
    ids: list[int]
    mean_ms: int
    load: tuple[int, int, int]
