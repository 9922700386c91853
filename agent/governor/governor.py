"""The loop: follow the extension, plan, commit to the ledger, instruct. In that order, always."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from distributed.core import rpc

from agent.errors import FencedError, LedgerAwayError, SchedulerError
from agent.governor.metrics import figures
from agent.governor.rulebook import Refused as RulesRefused
from agent.governor.rulebook import Rulebook, Rules
from agent.governor.view import Bound, Task, View, Word
from agent.governor.words import carried
from agent.ledger.ledger import Ledger
from agent.ledger.parts import split
from agent.ledger.records import Decided, Ended, Entry, Lease, Placed, Run
from agent.ledger.rows import BudgetTakenError
from agent.model.codec import digest, encode
from agent.model.plans import Decision, Drain, Plan, Wait
from agent.model.pools import Pool
from agent.model.snapshot import Budget, Group, Policy, PoolState, Running, Snapshot
from agent.planner.estimate import by_shape, estimate, statistics_of
from agent.planner.plan import VERSION, plan
from agent.planner.room import share
from agent.pools.port import Gone, Notice, Observation, Provider, Refused, Report
from agent.scheduler import protocol as p

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
#: a launched worker that left the scheduler may take so long to end by itself, seconds
LINGER = 5.0
#: and one that a governor finds as it begins, to find its scheduler
RETURN = 60.0
#: and looks whether the rule files have changed, ms
LOOK_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Why tasks of a group wait: the one answer to "why is it not running?"."""

    group: str
    name: str
    task_class: str
    root_run: str
    flow_run: str
    count: int
    reason: str
    why: str
    release: str
    since_ms: int
    #: the pool it waits for, or a person is asked about
    pool: str


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
        self.scheduler, self.ledger, self.policy, self.providers = scheduler, ledger, policy, providers
        self.declared_budgets = {b.name: b for b in budgets}
        self.rulebook, self.mode, self.holder = rulebook, mode, holder
        #: what else observes the world for as long as the governor runs: prices
        self.feeds = feeds
        self.clock = clock or (lambda: round(time.time() * 1000))
        self.view = View(pools, rulebook.rules.judge, rulebook.rules.set.facts)
        self.epoch = self.ack = 0
        self.degraded: list[str] = []
        self.warnings: list[str] = []
        self.holds: dict[str, Held] = {}
        self.decisions: dict[int, Decision] = {}
        self.plan_ms: deque[float] = deque(maxlen=1_000)
        self.commit_ms: deque[float] = deque(maxlen=1_000)
        self._last: dict[tuple[str, str], tuple[Any, int]] = {}
        self._runs: dict[str, int] = {}
        self._commands: list[Callable[[int], None]] = []
        self._says: list[dict[str, Any]] = []
        self._next_decision = self._next_placement = self._next_run = 1
        self._wake = asyncio.Event()
        self._stop = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="orc-ledger")
        self._jobs: set[asyncio.Task[None]] = set()
        self._renewed_ms = 0
        self._folded_ms = self._looked_ms = self.clock()
        self._looking = False
        self._new_rules: Rules | None = None
        self._asked: list[tuple[int, Pool, str]] = []
        self._shown_ms = 0
        #: when running tasks that may be worth moving were looked for
        self._moved_ms = 0
        #: worker → why it is being ended, where it is not drained
        self._causes: dict[str, str] = {}
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
        async with rpc(self.scheduler) as remote:
            self.remote = remote
            await self._begin()
            self.on_begun()
            feeds = [asyncio.ensure_future(feed(self._observed)) for feed in self.feeds]
            for task in feeds:
                task.add_done_callback(self._done)
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

    def open_usd_micros(self, now: int) -> int:
        """What the open leases cost so far."""
        return sum(
            view.pool.billed(lease.granted_ms, now)
            for lease in self.view.leases.values()
            if (view := self.view.pools.get(lease.pool)) is not None
            and lease.granted_ms is not None
            and lease.ended_ms is None
        )

    def stop(self) -> None:
        """End after this round."""
        self._stop = True
        self._wake.set()

    async def _take(self) -> None:
        while (epoch := await self._try_to_take()) is None:
            if self._stop:
                return
            await asyncio.sleep(1)
        await self._taken(epoch)

    async def _taken(self, epoch: int) -> None:
        self.epoch = epoch
        view = self.view
        self._next_decision, self._next_placement, view.next_lease, self._next_run = await self._write(
            self.ledger.next_ids
        )
        await self._write(
            self.ledger.declare_budgets, {b.name: b.limit_usd_micros for b in self.declared_budgets.values()}
        )
        for record in await self._write(self.ledger.records, 0, 10_000, "said"):
            for said in record.body["said"]:
                self._heard(said)
        for run in await self._write(self.ledger.runs):
            self._runs[run.flow_run] = run.no
        roots: list[str] = []
        for task_class, pool, result, start, ran, root in await self._write(lambda: list(self.ledger.executions())):
            if result == "done" and ran:
                view.learning.ran(task_class, pool, start + ran, ran, root)
                roots.append(root)
        for root in dict.fromkeys(roots):
            view.learning.quiet(root)

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
        state = await self._ask("orc_snapshot")
        self.degraded, self.warnings = list(state["degraded"]), list(state["warnings"])
        await self._ask(
            "orc_instruct", pools=[self._size(view.pool) for view in self.view.pools.values()], mode=self.mode
        )
        state = await self._ask("orc_snapshot")
        self.ack = state["ack"]
        known = {name: await provider.adopt(self._observed) for name, provider in self.providers.items()}
        for lease in await self._write(self.ledger.open_leases):
            self.view.leases[lease.id] = lease
        self.view.begin(state, now)
        self._reconcile_leases(known, dict(state.get("departed", ())), now)
        entry = self._entry(now, "start")
        entry.says.update(
            scheduler=self.scheduler,
            mode=self.mode,
            degraded=self.degraded,
            rules=self.rulebook.rules.digest,
            planner=VERSION,
            pools=[encode(v.pool).decode() for v in self.view.pools.values()],
        )
        await self._reconcile_placements(state, entry, now)
        await self._commit(entry)
        if self.rulebook.wrong:
            self._rules_refused()

    async def _reconcile_placements(self, state: Mapping[str, Any], entry: Entry, now: int) -> None:
        bound = {str(key): (key, spec, address) for key, spec, address in state["bound"]}
        ended = {str(delta[1]): delta for delta in state["ended"]}
        ready = {str(key): key for key, *_ in state["ready"]}
        opened = await self._write(self.ledger.open_placements)
        newest = {key: id for id, key, *_ in opened}
        for id, key, _, pool, _ in opened:
            if newest[key] == id and key in bound:
                self._rebind(id, pool, *bound[key], now)
            elif newest[key] == id and key in ended:
                _, _, result, _, start, stop, _, lineage, *_ = ended[key]
                named = tuple((str(verb), str(kind), str(at)) for verb, kind, at in lineage)
                entry.outcomes.append(
                    Ended(placement=id, result=result, start_ms=start, run_ms=stop - start, lineage=named)
                )
            else:
                entry.outcomes.append(Ended(placement=id, result="not sent" if key in ready else "unknown"))
        entry.says["closed"] = len(entry.outcomes)
        for key, about in bound.items():
            if key not in newest:
                self._adopt(*about, entry, now)

    def _adopt(self, key: Any, spec: int, address: str, entry: Entry, now: int) -> None:
        """A task is bound and no record says so: another governor's record has not arrived. It gets one."""
        live = self.view.live.get(address)
        pool = live.counts.pool if live is not None else ""
        group = self.view.groups[self.view._group(Task(key, spec, 0, now), now)]
        decision = Decision(
            group=group.id, task_class=group.task_class, name=group.name, root_run=group.root_run, flow_run=group.flow_run, verb="bind",
            pool=pool, reason=f"{pool}: bound before this governor began, by one whose record has not arrived", options=(),
        )  # fmt: skip
        number = self._record(decision, entry)
        entry.placements.append(Placed(id=self._next_placement, decision=number, key=str(key)))
        self._rebind(self._next_placement, pool, key, spec, address, now)
        self._next_placement += 1

    def _rebind(self, placement: int, pool: str, key: Any, spec: int, address: str, now: int) -> None:
        task = Task(key, spec, 0, now)
        group = self.view._group(task, now)
        expected, load = (
            60_000,
            self.view.load(self.view.groups[group], pool) if self.view._state_of(pool) else (0, 0, 0),
        )
        self.view.sent(Bound(task, placement, group, pool, address, now, expected, self._price(pool, now), load))

    def _reconcile_leases(
        self, known: Mapping[str, Mapping[str, int | None]], departed: Mapping[str, int], now: int
    ) -> None:
        """End the leases of workers that are gone.

        Args:
            known: what each provider knows of workers of before.
            departed: worker → when the scheduler lost it.
        """
        joined = {live.counts.name for live in self.view.live.values()}
        for lease in list(self.view.leases.values()):
            view = self.view.pools.get(lease.pool)
            theirs = known.get(view.pool.provider or "", {}) if view is not None else {}
            ended = theirs.get(lease.worker, departed.get(lease.worker, now))
            if lease.worker not in joined and ended is not None:
                gone = max(lease.granted_ms or lease.asked_ms, ended)
                self.view.end_lease(lease.id, min(gone, now), "gone while no governor watched")
            elif lease.worker not in joined and view is not None:
                view.starting[lease.worker] = lease.granted_ms or lease.asked_ms
                self._job(self._end_left(lease, "it did not find the scheduler", RETURN))

    async def _follow(self) -> None:
        # a long poll that something else has overtaken stays out and is read in a later round
        follow = self._poll = self._poll or asyncio.ensure_future(self._ask("orc_follow", ack=self.ack, wait=REST))
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
                self.view.apply(delta, now)
            self.ack = reply["ack"]
            left, self.view.left = self.view.left, []
            for lease, why in left:
                if why:
                    self._says.append({"left": lease.worker, "why": why})
                self._job(self._end_left(lease, why or "it left the scheduler", LINGER))
        commands, self._commands = self._commands, []
        for command in commands:
            command(now)

    async def _ask(self, handler: str, **arguments: Any) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = await getattr(self.remote, handler)(epoch=self.epoch, **arguments)
        except (OSError, AttributeError) as error:
            raise SchedulerError(
                f"the Dask scheduler at {self.scheduler} is gone or has no ORC extension: {error}"
            ) from error
        except Exception as error:  # distributed answers an unknown handler with a plain Exception
            raise SchedulerError(
                f"the Dask scheduler at {self.scheduler} answered {error}; is the extension loaded?"
            ) from error
        if isinstance(reply, dict) and "fenced" in reply:
            raise FencedError(
                f"governor epoch {reply['fenced']} governs {self.scheduler}; this one (epoch {self.epoch}) stops"
            )
        return reply

    async def _write(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._writer, partial(call, *arguments))

    # ------------------------------------------------------------------ one round
    async def _round(self) -> None:
        now = self.clock()
        view = self.view
        view.forget_quiet(now)
        if now - self._folded_ms > FOLD_MS:
            self._folded_ms = now
            self._job(asyncio.to_thread(self.ledger.checkpoint))
        await self._refuse_wrong()
        await self._judge_again(now)
        await self._write_words(now)
        if now - self._shown_ms > SHOW_MS:
            self._shown_ms = now
            await self._ask("orc_instruct", figures=figures(self))
        if view.shadow:
            await self._shadow(now)
        running: tuple[Running, ...] = ()
        if self.mode == "govern":
            look = view.came or now - self._moved_ms > MOVE_MS
            self._moved_ms = now if look else self._moved_ms
            running = view.running(now, look)
        movable = any(not task.leaves_for for task in running)
        if not (
            view.dirty or movable or view.ended or view.changed_leases or self._says or view.news or self._due(now)
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
        for state in self.view.pools.values():
            if self.view.ready and state.retry_ms and state.retry_ms <= now:
                return True
        if self.view.ready and now - self._renewed_ms > 1_000:
            self._renewed_ms = now
            return True
        idle = [
            live
            for live in self.view.live.values()
            if live.idle_since_ms is not None and not live.counts.draining and live.counts.pool in self.view.pools
        ]
        return (
            any(now - (live.idle_since_ms or 0) >= self.view.pools[live.counts.pool].pool.idle_ms for live in idle)
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
            moved = self.view.judge_again(new.judge, new.set.facts, now)
            self.rulebook.swap(new)
        else:
            moved = self.view.turn_hour(now)
        for word in carried(self.view.words, self.view.groups, moved):
            self.answer(word)
        if now - self._looked_ms >= LOOK_MS and not self._looking and self._new_rules is None:
            self._looked_ms, self._looking = now, True
            self._job(self._look_at_rules())

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
            self._wake.set()
        elif wrong and not self.rulebook.wrong:
            logger.info("the rule files are right again, and as they are in force")

    def _rules_refused(self) -> None:
        """Files that are wrong are said aloud; the rules in force stay."""
        logger.error("the rule files are refused and the rules in force stay: %s", self.rulebook.wrong)
        self.say({"rules_refused": self.rulebook.wrong, "in_force": self.rulebook.rules.digest})

    async def _write_words(self, now: int) -> None:
        """What people and providers said is on record before it has an effect."""
        said, self._says = [*self._says, *self.view.news], []
        self.view.news = []
        if said:
            await self._commit(Entry(kind="said", at_ms=now, mode=self.mode, says={"said": said}))
        leaving, self.view.leaving = self.view.leaving, []
        for address in leaving:
            self._job(self._rescue(address))

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
            pools=self.view.pool_states(now),
            groups=groups,
            statistics=self.view.learning.statistics(
                {g.task_class for g in (*groups, *(task.group for task in running))}
            ),
            budgets=budgets,
            usage=self.view.usage(groups),
            runs=self.view.runs(now),
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
        numbers = {at: self._record(decision, entry) for at, decision in enumerate(made.decisions)}
        self.holds = {
            w.group + w.reason: self._held(groups[w.group], w, made.decisions[w.decision]) for w in made.waits
        }
        out = []
        for bind in made.binds:
            group, state = groups[bind.group], states[bind.pool]
            number = numbers[bind.decision]
            tasks = self.view.take(bind)
            ids = range(self._next_placement, self._next_placement + len(tasks))
            self._next_placement += len(tasks)
            entry.placements += [
                Placed(
                    id=id,
                    decision=number,
                    key=str(task.key),
                    upstream=task.upstream,
                    budget=bind.budget,
                    reserve_usd_micros=bind.reserve_usd_micros,
                )
                for id, task in zip(ids, tasks, strict=True)
            ]
            entry.team, entry.trace, entry.root_run = self._context(tasks[0])
            guess = estimate(group, bind.pool, statistics, self.policy.deadline_sigmas)
            out.append(
                _Sending(
                    group,
                    state,
                    bind.ahead,
                    list(tasks),
                    list(ids),
                    max(1, guess.mean_ms - group.done_ms),
                    self.view.load(group, bind.pool),
                )
            )
        return out

    def _context(self, task: Task) -> tuple[str, str, str]:
        spec = self.view.specs[task.spec]
        return spec.team, spec.trace, spec.root_run

    def _record(self, decision: Decision, entry: Entry) -> int:
        """The number of a decision; one that says the same as the group's last keeps its number."""
        about = (decision.group, f"{decision.verb}/{decision.pool}")
        signature = (
            decision.verdicts,
            decision.approved_by,
            decision.overridden,
            tuple(
                (
                    o.pool,
                    o.why_not,
                    o.estimate.source if o.estimate else "",
                    round(4 * math.log2(o.score_usd_micros + 1)),
                )
                for o in decision.options
            ),
        )
        known = self._last.get(about)
        if known is not None and known[0] == signature:
            return int(known[1])
        number: int = self._next_decision
        self._next_decision += 1
        self._last[about] = (signature, number)
        self.decisions[number] = decision
        entry.decisions.append(Decided(id=number, run=self._run(decision, entry), decision=decision))
        self.view.tally.decisions[decision.verb, decision.pool or ""] += 1
        if len(self._last) > 5_000:
            self._last.clear()
        if len(self.decisions) > 5_000:
            self.decisions.pop(next(iter(self.decisions)))
        return number

    def _run(self, decision: Decision, entry: Entry) -> int:
        number = self._runs.get(decision.flow_run)
        if number is None:
            spec = next((s for s in reversed(self.view.specs) if s.flow_run == decision.flow_run), None)
            number, self._next_run = self._next_run, self._next_run + 1
            self._runs[decision.flow_run] = number
            entry.runs.append(
                Run(
                    no=number,
                    flow_run=decision.flow_run,
                    root_run=decision.root_run,
                    flow=spec.flow if spec else "",
                    deployment=spec.deployment if spec else "",
                    team=spec.team if spec else "",
                )
            )
        return number

    def _held(self, group: Group, wait: Wait, decision: Decision) -> Held:
        return Held(
            group=group.id,
            name=group.name,
            task_class=group.task_class,
            root_run=group.root_run,
            flow_run=group.flow_run,
            count=wait.count,
            reason=wait.reason,
            why=wait.why,
            release=wait.release,
            since_ms=group.since_ms,
            pool=decision.pool or "",
        )

    def _plan_launches(self, made: Plan, now: int, entry: Entry) -> None:
        """Leases for the workers that will be asked for, on record before they are."""
        self._asked = []
        if self.mode != "govern" or self.degraded:
            return
        for launch in made.launches:
            pool = self.view.pools[launch.pool].pool
            for _ in range(launch.count):
                worker = self._name(pool)
                lease = self.view.new_lease(pool, worker, now, launch.why)
                self.view.pools[pool.name].starting[worker] = now
                self._asked.append((lease.id, pool, worker))
        entry.leases = sorted(
            {**{x.id: x for x in entry.leases}, **self._changed_leases()}.values(), key=lambda x: x.id
        )
        if made.launches or made.drains:
            entry.says["fleet"] = {
                "launch": [asdict(x) for x in made.launches],
                "drain": [asdict(x) for x in made.drains],
            }

    def _name(self, pool: Pool) -> str:
        taken = {lease.worker for lease in self.view.leases.values() if lease.ended_ms is None}
        number = 0
        while f"{pool.name}-{number}" in taken:
            number += 1
        return f"{pool.name}-{number}"

    def _entry(self, now: int, kind: str = "round") -> Entry:
        view = self.view
        entry = Entry(kind=kind, at_ms=now, mode=self.mode)
        entry.outcomes, view.ended = view.ended, []
        entry.leases = list(self._changed_leases().values())
        return entry

    def _changed_leases(self) -> dict[int, Lease]:
        changed = {id: self.view.leases[id] for id in sorted(self.view.changed_leases)}
        self.view.changed_leases.clear()
        return changed

    async def _commit(self, entry: Entry) -> None:
        entry.outcomes = list({o.placement: o for o in entry.outcomes}.values())
        begin = time.perf_counter()
        try:
            await self._write(self.ledger.append, entry)
        except (BudgetTakenError, LedgerAwayError):
            self.view.ended = [*entry.outcomes, *self.view.ended]
            self.view.changed_leases.update(lease.id for lease in entry.leases)
            raise
        self._renewed_ms = entry.at_ms
        self.commit_ms.append((time.perf_counter() - begin) * 1000)
        for lease in entry.leases:
            if lease.ended_ms is not None:
                self.view.leases.pop(lease.id, None)

    # ------------------------------------------------------------------ after the commit
    async def _instruct(self, made: Plan, sendings: list[_Sending], now: int) -> None:
        address = {state.counts.name: a for a, state in self.view.live.items()}
        drain = [address[d.worker] for d in made.drains if d.worker in address]
        withdraw = [address[w.worker] for w in made.withdraws if w.worker in address]
        refuse = [
            (task.key, "RejectedError" if r.rejected else "NeedUnmetError", r.why)
            for r in made.refusals
            for task in self.view.ready.get(r.group, {}).values()
        ]
        keys = {bound.placement: key for key, bound in self.view.bound.items()} if made.moves else {}
        leave = []
        for move in made.moves:
            if (key := keys.get(move.placement)) is not None:
                leave.append((key, move.why))
                self.view.told_to_leave(key, move.pool, now)
        if sendings or drain or withdraw or refuse or leave:
            binds = [self._message(sending) for sending in sendings]
            reply = await self._ask(
                "orc_instruct", binds=binds, drain=drain, withdraw=withdraw, refuse=refuse, leave=leave
            )
            for sending, where in zip(sendings, reply["bound"], strict=False):
                self._sent(sending, where, now)
        for drained in made.drains:
            self._job(self._drain(drained))
        for id, pool, worker in self._asked:
            self._job(self._launch(id, pool, worker))

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
                self.view.ended.append(Ended(placement=id, result="not sent"))
                self.view.dirty = True
                continue
            price = sending.state.usd_micros_per_hour
            self.view.sent(
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
            self._job(self._resync())

    async def _resync(self) -> None:
        state = await self._ask("orc_snapshot")
        now = self.clock()
        for key, *about in state["ready"]:
            if key not in self.view.group_of:
                self.view.apply((p.READY, key, *about), now)
        self._wake.set()

    async def _shadow(self, now: int) -> None:
        """Plan tasks that run where Dask put them, as if they were held; record it, do nothing of it."""
        tasks = self.view.shadow_groups(now)
        groups = tuple(self.view._now(name, [task for task, _ in found]) for name, found in sorted(tasks.items()))
        snapshot = await self._snapshot(now, groups)
        made = plan(snapshot)
        entry = Entry(kind="round", at_ms=now, mode="shadow")
        head, parts = split(snapshot)
        entry.says.update(head=head, plan=digest(encode(made)))
        entry.parts = parts
        for group in groups:
            decision = next(d for d in made.decisions if d.group == group.id)
            number = self._record(decision, entry)
            for task, address in tasks[group.id]:
                entry.placements.append(Placed(id=self._next_placement, decision=number, key=str(task.key)))
                pool = decision.pool or ""
                bound = Bound(task, self._next_placement, group.id, pool, address, now, 0, self._price(pool, now))
                self.view.sent(bound)
                self._next_placement += 1
        await self._commit(entry)

    async def _refuse_wrong(self) -> None:
        wrong, self.view.wrong = self.view.wrong, []
        if wrong:
            logger.warning("%d tasks are refused: %s", len(wrong), wrong[0][1])
            self.say({"refused": [str(key) for key, _ in wrong[:100]], "count": len(wrong), "why": wrong[0][1]})
            await self._ask("orc_instruct", refuse=[(key, "SettingError", why) for key, why in wrong])

    # ------------------------------------------------------------------ workers
    def _job(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._jobs.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a job of the governor failed: %s", error, exc_info=error)

    async def _launch(self, lease: int, pool: Pool, worker: str) -> None:
        try:
            await self.providers[pool.provider or ""].launch(pool, worker)
        except Refused as refused:
            logger.info("launch of %s refused: %s", worker, refused)
            self.view.refused(lease, self.clock(), str(refused))
        except (
            Exception
        ) as error:  # a provider's own failure is a refusal that is told loudly, or its lease would stay open
            logger.exception("launch of %s failed", worker)
            self.view.refused(lease, self.clock(), f"failed: {error!r}")
        else:
            self.view.granted(lease, self.clock())
        self._wake.set()

    async def _drain(self, drain: Drain) -> None:
        """Move results off an idle worker, then end it. Kept when it holds the only copy of something."""
        live = next(((a, live) for a, live in self.view.live.items() if live.counts.name == drain.worker), None)
        pool = self.view.pools[drain.pool].pool
        if live is None:
            return
        live[1].counts.draining = True
        retired = await self.remote.retire_workers(workers=[live[0]], close_workers=False, remove=False)
        if live[0] not in retired:
            live[1].counts.draining = False
            live[1].idle_since_ms = self.clock()
            await self._ask("orc_instruct", undrain=[live[0]])
            return
        await self.providers[pool.provider or ""].end(drain.worker)

    async def _end_left(self, lease: Lease, why: str, seconds: float) -> None:
        """End a worker that is not on the scheduler: stopped or cut off it costs money, and holds a place in its pool."""
        await asyncio.sleep(seconds)
        now = self.view.leases.get(lease.id)
        provider = self.providers.get(self.view.pools[lease.pool].pool.provider or "")
        joined = any(live.lease == lease.id for live in self.view.live.values())
        if now is None or now.ended_ms is not None or joined or provider is None:
            return
        logger.warning("ending %s: %s", lease.worker, why)
        self._causes[lease.worker] = f"died: {why}"
        await provider.end(lease.worker)

    def _observed(self, observation: Observation) -> None:
        now = self.clock()
        if isinstance(observation, Notice):
            address = self.view.noticed(observation.worker)
            logger.info("%s will be taken away in %d ms", observation.worker, observation.left_ms)
            self._says.append({"notice": observation.worker, "left_ms": observation.left_ms})
            if address is not None:
                self._job(self._noticed(address))
        elif isinstance(observation, Gone):
            cause = self._causes.pop(observation.worker, observation.cause)
            for lease in list(self.view.leases.values()):
                if lease.worker == observation.worker and lease.ended_ms is None:
                    self.view.end_lease(lease.id, now, cause)
        else:
            view = self.view.pools[observation.pool]
            view.price = observation.usd_micros_per_hour
            steps = (
                *view.pool.price,
                type(view.pool.price[0])(since_ms=now, usd_micros_per_hour=observation.usd_micros_per_hour),
            )
            view.pool = replace(view.pool, price=steps[-500:])
        self.view.dirty = True
        self._wake.set()

    async def _noticed(self, address: str) -> None:
        """Nothing new to a worker that is taken away, and what only it holds goes elsewhere."""
        await self._ask("orc_instruct", drain=[address])
        await self._rescue(address)

    async def _rescue(self, address: str) -> None:
        """Results that no other worker has are copied off a worker; what it runs goes on."""
        await self.remote.retire_workers(workers=[address], close_workers=False, remove=False)

    def _price(self, pool: str, now: int) -> int:
        view = self.view.pools.get(pool)
        return (view.price if view.price is not None else view.pool.price_at(now)) if view is not None else 0

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
        self.view.dirty = True
        self._wake.set()

    def say(self, what: dict[str, Any]) -> None:
        """Put something on record with the next commit."""
        self._says.append(what)

    def answer(self, said: dict[str, Any]) -> None:
        """A person approved, rejected or overrode: on record first, then in force, also after a restart."""
        self.say(said)
        self._heard(said)

    def _heard(self, said: Mapping[str, Any]) -> None:
        if "starved" in said:
            self.view.starved(said["starved"], said["mib"])
        for group in said.get("groups", ()):
            word = self.view.words.setdefault(group, Word())
            if "override" in said:
                word.override = said["override"]
            elif said.get("answer") == "approve":
                word.approved, word.approved_pools = tuple(said["rules"]), (*word.approved_pools, said["pool"])
                word.approved_by, word.approved_usd_micros, word.rejected_by = said["by"], said.get("usd_micros"), None
            elif said.get("answer") == "reject":
                word.rejected_by = said["by"]

    def estimate_of(self, group: Group, state: PoolState) -> tuple[int, float]:
        """Expected ms and share of a worker, for people."""
        pools = [view.pool for view in self.view.pools.values()]
        statistics = by_shape(self.view.learning.statistics({group.task_class}), pools)
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
