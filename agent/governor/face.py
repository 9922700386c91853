"""The governor's HTTP face, on loopback, for the command line and the mind; a token of the same user is asked for."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import tornado.web

from agent.governor.governor import Governor
from agent.governor.metrics import page
from agent.model.effects import Note
from agent.model.snapshot import PoolState
from agent.model.units import show_ms
from agent.state.snapshot import pools

TOKEN = "X-Orc-Token"
_AWAY = "the ledger's database is away; what people say is taken when it is back, and nothing was changed"


def application(governor: Governor, token: str) -> tornado.web.Application:
    """The routes: GET /status, /why, /holds; POST /approve, /reject, /override."""
    known = {"governor": governor, "token": token}
    return tornado.web.Application(
        [
            (r"/status", _Status, known),
            (r"/metrics", _Metrics, known),
            (r"/holds", _Holds, known),
            (r"/why", _Why, known),
            (r"/(approve|reject)", _Answer, known),
            (r"/override", _Override, known),
        ],
        log_function=lambda handler: None,
    )


class _Handler(tornado.web.RequestHandler):
    def initialize(self, governor: Governor, token: str) -> None:
        self.governor, self.token = governor, token

    def prepare(self) -> None:
        if not hmac.compare_digest(self.request.headers.get(TOKEN, ""), self.token):
            self.fail(403, "the token is missing or wrong; it is in governor.json of ORC_HOME")

    def fail(self, status: int, why: str) -> None:
        self.set_status(status)
        self.finish({"error": why})

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """What nobody foresaw is JSON too: the command line shows a sentence, the log has the traceback."""
        self.finish({"error": f"the governor failed at {self.request.path} ({self._reason}); its log says why"})

    def said(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.request.body or b"{}")
        return body


class _Status(_Handler):
    def get(self) -> None:
        g, now = self.governor, self.governor.clock()
        shown = []
        for state in pools(g.state, now):
            pool = state.pool
            shown.append(
                {
                    "pool": pool.name,
                    "kind": pool.shown_kind,
                    "size": pool.shown_size,
                    "usd_micros_per_hour": state.usd_micros_per_hour,
                    "max": pool.max_workers,
                    "priced": pool.priced,
                    "workers": [
                        {
                            "name": w.name,
                            "bound": w.bound,
                            "slots": w.slots,
                            "idle_ms": now - w.idle_since_ms if w.idle_since_ms is not None else None,
                            "draining": w.draining,
                        }
                        for w in state.workers
                    ],
                    "starting": [s.name for s in state.starting],
                    "losses_a_day": _losses(g, state) if pool.market == "spot" else None,
                    "refused_ms": now - state.refused_since_ms if state.refused_since_ms is not None else None,
                }
            )
        self.finish(
            {
                "mode": g.mode,
                "epoch": g.epoch,
                "degraded": g.degraded,
                "warnings": g.warnings,
                "pools": shown,
                "running": len(g.state.bound),
                "held": len(g.state.waiting),
                "open_usd_micros": g.state.fleet.leases.open_usd_micros(now),
                "scheduler": g.scheduler,
                "through": g.state.passed_through,
                "spooled": g.ledger.spooled,
                "rules": {
                    "count": g.rules.rulebook.rules.count,
                    "digest": g.rules.rulebook.rules.digest,
                    "wrong": g.rules.rulebook.wrong,
                },
                "plan_ms": _quantiles(g.plan_ms),
                "commit_ms": _quantiles(g.journal.commit_ms),
            }
        )


def _losses(governor: Governor, state: PoolState) -> tuple[float, int, int]:
    """Of a worker that runs for a day: interruptions expected, and the 90 % interval."""
    low, high = governor.state.statistics.losses(state.pool.name, state.hazard_per_hour, 24, 0.9)
    return 24 * state.hazard_per_hour, low, high


class _Metrics(_Handler):
    def prepare(self) -> None:
        """Figures without names of people or data: Prometheus asks without a token, on loopback."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; version=0.0.4")
        self.finish(page(self.governor))


class _Holds(_Handler):
    def get(self) -> None:
        self.finish({"holds": [asdict(held) for held in self.governor.holds.values()], "now_ms": self.governor.clock()})


class _Why(_Handler):
    async def get(self) -> None:
        run = self.get_argument("run", "")
        g, now = self.governor, self.governor.clock()
        holds = [h for h in g.holds.values() if not run or run in (h.flow_run, h.root_run)]
        lines = [
            {
                "task": h.name,
                "count": h.count,
                "reason": h.reason,
                "why": h.why,
                "since": show_ms(now - h.since_ms),
                "release": h.release,
                "id": h.approval or h.group,
            }
            for h in holds
        ]
        state = await g.scheduler_client.call("orc_state", flow_run=run) if not g.stopping else {"waiting": []}
        for key, since, on, count in state["waiting"]:
            lines.append(
                {
                    "task": key,
                    "count": 1,
                    "reason": "inputs",
                    "why": f"waits for {count} inputs: {', '.join(on)}",
                    "since": show_ms(now - since),
                    "release": "the end of those tasks",
                    "id": "",
                }
            )
        running = [
            {
                "task": str(b.task.key),
                "pool": b.pool,
                "worker": g.state.fleet.live[b.address].counts.name if b.address in g.state.fleet.live else b.address,
                "for": show_ms(now - b.at_ms),
            }
            for b in g.state.bound.values()
            if not run or run in (g.state.specs[b.task.spec].flow_run, g.state.specs[b.task.spec].root_run)
        ]
        self.finish({"holds": lines, "running": running})


class _Answer(_Handler):
    async def post(self, verb: str) -> None:
        said, g = self.said(), self.governor
        wanted = str(said.get("id") or "")
        found = g.state.approvals.find(wanted)
        if len(found) != 1:
            return self.fail(404, f"no task waits for approval under {wanted!r}; `orc why` lists what waits")
        if not said.get("by"):
            return self.fail(400, "who answers? say --by NAME")
        usd = said.get("usd_micros")
        if usd is not None and (isinstance(usd, bool) or not isinstance(usd, int) or usd < 0):
            return self.fail(400, f"usd_micros is {usd!r}: say whole micro-dollars, 0 or more")
        if g.ledger.away:
            return self.fail(503, _AWAY)
        asked, done = found[0], asyncio.get_running_loop().create_future()

        def answer(now: int) -> None:
            still = [open for open in g.state.approvals.find(asked.id) if open.group in g.state.waiting.by_group]
            if not still:
                done.set_result(None)
                return
            closed = g.state.approvals.close(asked.id)
            by = str(said["by"])
            about = {"task": closed.task, "flow_run": closed.flow_run, "by": by, "why": str(said.get("why", ""))}
            words = {"answer": verb, "approval": closed.id, "groups": [closed.group], "rules": list(closed.rules)}
            g.note(Note(kind="approval", body=closed.body(), actor=by))
            g.answer({**words, "pool": closed.pool, "usd_micros": usd, **about}, by)
            done.set_result(len(g.state.waiting.by_group[closed.group]))

        g.command(answer)
        if (count := await done) is None:
            return self.fail(
                409,
                f"{asked.task} no longer waits under {asked.id[:12]}: it was answered, or ended; `orc why` lists what waits",
            )
        self.finish({"task": asked.task, "count": count, "answer": verb})


class _Override(_Handler):
    async def post(self) -> None:
        said, g = self.said(), self.governor
        pool = said.get("pool")
        if pool not in g.state.fleet.pools:
            return self.fail(404, f"there is no pool {pool!r}; pools are {', '.join(sorted(g.state.fleet.pools))}")
        if not said.get("by"):
            return self.fail(400, "who says so? say --by NAME")
        if g.ledger.away:
            return self.fail(503, _AWAY)
        wanted = str(said.get("task", "")).replace("-", "")
        groups = {
            group
            for key, group in g.state.waiting.group_of.items()
            if wanted and (wanted in str(key).replace("-", "") or group.startswith(wanted))
        }
        if not groups:
            return self.fail(
                404, f"no held task is {said.get('task')!r}; one that runs cannot be moved (`orc why` lists what waits)"
            )
        done = asyncio.get_running_loop().create_future()

        def override(now: int) -> None:
            by = str(said["by"])
            g.answer({"override": pool, "groups": sorted(groups), "by": by, "why": str(said.get("why", ""))}, by)
            done.set_result(None)

        g.command(override)
        await done
        self.finish({"groups": sorted(groups), "pool": pool})


def _quantiles(values: Iterable[float]) -> dict[str, float]:
    """Median, 99th percentile and largest."""
    found = sorted(values)
    return {"p50": found[len(found) // 2], "p99": found[int(len(found) * 0.99)], "max": found[-1]} if found else {}
