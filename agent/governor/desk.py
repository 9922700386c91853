"""The governor as people and other processes meet it: what it shows, and how a word of theirs is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from agent.api import schemas
from agent.errors import NotThereError, RecordAwayError, TooLateError
from agent.governor.governor import Governor
from agent.governor.metrics import page
from agent.model.effects import Note
from agent.model.identity import Identity
from agent.model.snapshot import PoolState
from agent.model.units import show_ms
from agent.state.snapshot import pools

_AWAY = "the ledger's database is away; what people say is taken when it is back, and nothing was changed"


class GovernorDesk:
    """Reads one governor, and hands it what people say. See `agent.api.port.Desk`."""

    def __init__(self, governor: Governor) -> None:
        self.governor = governor

    # ------------------------------------------------------------------ what it shows
    def status(self) -> schemas.Status:
        """The governor and its pools."""
        g, now = self.governor, self.governor.clock()
        rules = g.rules.rulebook
        return schemas.Status(
            mode=g.mode,
            epoch=g.epoch,
            degraded=g.degraded,
            warnings=g.warnings,
            pools=[self._pool(state, now) for state in pools(g.state, now)],
            running=len(g.state.bound),
            held=len(g.state.waiting),
            open_usd_micros=g.state.fleet.leases.open_usd_micros(now),
            scheduler=g.scheduler,
            through=g.state.passed_through,
            spooled=g.ledger.spooled,
            rules=schemas.RulesReport(count=rules.rules.count, digest=rules.rules.digest, wrong=rules.wrong),
            plan_ms=_quantiles(g.plan_ms),
            commit_ms=_quantiles(g.journal.commit_ms),
        )

    def _pool(self, state: PoolState, now: int) -> schemas.PoolReport:
        pool = state.pool
        return schemas.PoolReport(
            pool=pool.name,
            kind=pool.shown_kind,
            size=pool.shown_size,
            usd_micros_per_hour=state.usd_micros_per_hour,
            max=pool.max_workers,
            priced=pool.priced,
            workers=[
                schemas.WorkerReport(
                    name=worker.name,
                    bound=worker.bound,
                    slots=worker.slots,
                    idle_ms=now - worker.idle_since_ms if worker.idle_since_ms is not None else None,
                    draining=worker.draining,
                )
                for worker in state.workers
            ],
            starting=[starting.name for starting in state.starting],
            losses_a_day=self._losses(state) if pool.market == "spot" else None,
            refused_ms=now - state.refused_since_ms if state.refused_since_ms is not None else None,
            fault=state.fault,
        )

    def _losses(self, state: PoolState) -> tuple[float, int, int]:
        """Of a worker that runs for a day: interruptions expected, and the 90 % interval."""
        low, high = self.governor.state.statistics.losses(state.pool.name, state.hazard_per_hour, 24, 0.9)
        return 24 * state.hazard_per_hour, low, high

    async def why(self, run: str) -> schemas.Why:
        """What waits and what runs: of a flow run, or of all."""
        g, now = self.governor, self.governor.clock()
        holds = [
            schemas.HoldLine(
                task=hold.name,
                count=hold.count,
                reason=hold.reason,
                why=hold.why,
                since=show_ms(now - hold.since_ms),
                release=hold.release,
                id=hold.approval or hold.group,
            )
            for hold in g.holds.values()
            if not run or run in (hold.flow_run, hold.root_run)
        ]
        seen: Any = await g.scheduler_client.call("orc_state", flow_run=run) if not g.stopping else {"waiting": []}
        holds += [
            schemas.HoldLine(
                task=str(key),
                count=1,
                reason="inputs",
                why=f"waits for {count} inputs: {', '.join(on)}",
                since=show_ms(now - since),
                release="the end of those tasks",
                id="",
            )
            for key, since, on, count in seen["waiting"]
        ]
        live = g.state.fleet.live
        running = [
            schemas.RunningLine(
                task=str(bound.task.key),
                pool=bound.pool,
                worker=live[bound.address].counts.name if bound.address in live else bound.address,
                since=show_ms(now - bound.at_ms),
            )
            for bound in g.state.bound.values()
            if not run or run in (g.state.specs[bound.task.spec].flow_run, g.state.specs[bound.task.spec].root_run)
        ]
        return schemas.Why(holds=holds, running=running)

    def holds(self) -> schemas.Holds:
        """Every hold."""
        return schemas.Holds(
            holds=[asdict(hold) for hold in self.governor.holds.values()], now_ms=self.governor.clock()
        )

    def metrics(self) -> bytes:
        """Prometheus' text format."""
        return page(self.governor)

    # ------------------------------------------------------------------ what people say
    async def answer(self, verb: str, said: schemas.Answer, who: Identity) -> schemas.Answered:
        """Approve or reject: the first answer counts, and later ones are told so."""
        g = self.governor
        found = g.state.approvals.find(said.id)
        if len(found) > 1:
            raise NotThereError(f"{said.id!r} is the beginning of {len(found)} questions; say more of the id")
        if not found and (closed := g.state.approvals.over(said.id)) is not None:
            raise TooLateError(f"{closed.task} no longer waits under {said.id}: the question was {closed.state}")
        if not found:
            raise NotThereError(f"no task waits for approval under {said.id!r}; `orc why` lists what waits")
        self._on_record()
        asked, done = found[0], asyncio.get_running_loop().create_future()

        def take(now: int) -> None:
            still = next(iter(g.state.approvals.find(asked.id)), None)
            if still is None or still.group not in g.state.waiting.by_group:
                done.set_result(None)
                return
            closed = g.state.approvals.close(asked.id)
            g.outbox.note(Note(kind="approval", body=closed.body(), actor=who.subject))
            body = {
                "answer": verb,
                "approval": closed.id,
                "groups": [closed.group],
                "rules": list(closed.rules),
                "pool": closed.pool,
                "usd_micros": said.usd_micros,
                "task": closed.task,
                "flow_run": closed.flow_run,
                "by": who.subject,
                "how": who.how,
                "why": said.why,
            }
            g.outbox.answer(body, who.subject)
            count = len(g.state.waiting.by_group[closed.group])
            g.outbox.once_recorded(lambda: done.set_result(count))

        g.command(take)
        if (count := await done) is None:
            raise TooLateError(
                f"{asked.task} no longer waits under {asked.id[:12]}: it was answered, or ended; "
                "`orc why` lists what waits"
            )
        return schemas.Answered(task=asked.task, count=count, answer=verb)

    async def override(self, said: schemas.Override, who: Identity) -> schemas.Overridden:
        """Choose a pool for tasks that wait."""
        g = self.governor
        if said.pool not in g.state.fleet.pools:
            known = ", ".join(sorted(g.state.fleet.pools))
            raise NotThereError(f"there is no pool {said.pool!r}; pools are {known}")
        self._on_record()
        wanted = said.task.replace("-", "")
        groups = {
            group
            for key, group in g.state.waiting.group_of.items()
            if wanted in str(key).replace("-", "") or group.startswith(wanted)
        }
        # `orc why` shows the question's id where there is one
        groups |= {asked.group for asked in g.state.approvals.find(said.task)} & set(g.state.waiting.by_group)
        if not groups:
            raise NotThereError(
                f"no held task is {said.task!r}; one that runs cannot be moved (`orc why` lists what waits)"
            )
        done = asyncio.get_running_loop().create_future()

        def take(now: int) -> None:
            about = {"by": who.subject, "how": who.how, "why": said.why}
            g.outbox.answer({"override": said.pool, "groups": sorted(groups), **about}, who.subject)
            g.outbox.once_recorded(lambda: done.set_result(None))

        g.command(take)
        await done
        return schemas.Overridden(groups=sorted(groups), pool=said.pool)

    def _on_record(self) -> None:
        if self.governor.ledger.away:
            raise RecordAwayError(_AWAY)


def _quantiles(values: Iterable[float]) -> dict[str, float]:
    """Median, 99th percentile and largest."""
    found = sorted(values)
    return {"p50": found[len(found) // 2], "p99": found[int(len(found) * 0.99)], "max": found[-1]} if found else {}
