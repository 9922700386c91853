"""An ORC_HOME in which every reading command has something to read: a real ledger, and a governor's answers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent.api.address import Published
from agent.ledger.ledger import Ledger
from agent.model.plans import Decision, Estimate, Option, RuleWord
from agent.model.records import Decided, Ended, Entry, FlowRun, Lease, Placed

RUN, HOLD = "0a1b2c3d-0000-4000-8000-000000000001", "5f2e7c1d9a00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The folder, and the environment in which a command sees it and nothing else of ORC's."""

    home: Path
    env: dict[str, str]
    #: what was sent to the governor: path and body
    asked: list[tuple[str, Any]]


@contextmanager
def stage(
    folder: Path, names: Sequence[str] = ("clean",), chain: str = "local", decisions: int = 40
) -> Iterator[Stage]:
    """Make it, serve it, and close it.

    Args:
        names: of tasks, taken in turn.
        decisions: on record, each with one task that has ended.
    """
    fill(folder, names, chain, decisions)
    asked: list[tuple[str, Any]] = []

    class Face(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"/v1/status": _status(), "/v1/why": _why(names)}[self.path.split("?")[0]])

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            self._answer({"task": names[0], "count": 3, "answer": "approve", "groups": [HOLD], "pool": "spot"})

        def _answer(self, body: dict[str, Any]) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Nothing: what is printed here would stand among the figures."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Face)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = Published(folder)
    address.open(f"http://127.0.0.1:{server.server_port}", "t")
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ORC_", "PREFECT_"))}
    root = str(Path(__file__).parent.parent)
    try:
        yield Stage(home=folder, env={**env, "ORC_HOME": str(folder), "PYTHONPATH": root}, asked=asked)
    finally:
        address.withdraw()
        server.shutdown()
        server.server_close()
        thread.join()


def fill(folder: Path, names: Sequence[str], chain: str = "local", decisions: int = 40) -> None:
    """Write the ledger: a run with a decision, a placement and an outcome a record."""
    guess = Estimate(median_ms=10_000, mean_ms=11_000, high_ms=24_500, n=3, source="history")
    spot = Option(
        pool="spot",
        kind="spot",
        estimate=guess,
        room=2,
        run_ms=11_300,
        work_usd_micros=440,
        delay_usd_micros=1_570,
        score_usd_micros=2_010,
    )
    safe = Option(
        pool="on-demand",
        kind="on-demand",
        estimate=guess,
        room=1,
        run_ms=11_400,
        work_usd_micros=1_080,
        delay_usd_micros=1_590,
        score_usd_micros=2_670,
    )
    ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}", chain)
    ledger.acquire_lease("stage", 0, 0)
    for number in range(1, decisions + 1):
        name = names[number % len(names)]
        decision = Decision(
            group=HOLD,
            task_class=name,
            name=name,
            root_run=RUN,
            flow_run=RUN,
            verb="bind",
            pool="spot",
            reason=f"spot for {name}",
            options=(spot, safe),
            verdicts=(RuleWord(rule=name, verb="prefer", reason=name),),
        )
        lease = Lease(
            id=1, pool="spot", kind="spot", worker="spot-0", asked_ms=0, granted_ms=1, ready_ms=2, cause=name,
            price='{"steps": [[0, 360000]]}',
        )  # fmt: skip
        ledger.append(
            Entry(
                kind="round",
                at_ms=number * 60_000,
                runs=[FlowRun(no=1, flow_run=RUN, root_run=RUN, flow=name)] if number == 1 else [],
                decisions=[Decided(id=number, run=1, decision=decision)],
                placements=[Placed(id=number, decision=number, key=f"{name}-{number:032x}")],
                outcomes=[Ended(placement=number, result="done", lease=1, start_ms=number * 60_000, run_ms=10_000)],
                leases=[lease],
            )
        )
    ledger.close()


def _status() -> dict[str, Any]:
    worker = {"name": "spot-0", "bound": 1, "slots": 2, "idle_ms": None, "draining": False}
    pool = {
        "pool": "spot",
        "kind": "spot",
        "size": "1 cpu, 4 GiB",
        "usd_micros_per_hour": 360_000,
        "max": 4,
        "priced": True,
        "workers": [worker],
        "starting": [],
        "losses_a_day": [1.2, 0, 4],
        "refused_ms": None,
    }
    return {
        "mode": "govern",
        "epoch": 3,
        "degraded": [],
        "warnings": [],
        "pools": [pool] * 4,
        "running": 2,
        "held": 5,
        "open_usd_micros": 1_000,
        "scheduler": "tcp://127.0.0.1:8786",
        "spooled": 0,
        "rules": {"count": 4, "digest": "0" * 64, "wrong": ""},
    }


def _why(names: Sequence[str]) -> dict[str, Any]:
    holds = [
        {
            "task": name,
            "count": 3,
            "reason": "approval",
            "why": name,
            "since": "3 min 20 s",
            "release": "orc approve",
            "id": HOLD,
        }
        for name in names
    ]
    return {
        "holds": holds,
        "running": [{"task": name, "pool": "spot", "worker": name, "for": "2.0 s"} for name in names],
    }
