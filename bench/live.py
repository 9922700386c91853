"""The simulator against the real thing: a run under the demo's spot trace, and the same tasks through the simulator.

`python -m bench.live [--tasks 60] [--seconds 4] [--runs 3] [--json FILE]`, or with `--job` a long job: see
`bench.live_job`.

Live: `orc up` with the demo's spot and on-demand pools, whose spot pool plays a real capacity trace, sped up; a
governed flow of naps in three layers. Simulated: the runtimes and dependencies the ledger has, the same pools with the
start-up that was seen, the same trace as capacity and price, the same planner and policy. Compared: what the leases
cost until the run's end, and the ledger's spend against the leases.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.model.needs import Needs
from agent.model.pools import Pool
from agent.model.snapshot import Policy
from agent.model.units import MICROS
from agent.planner.plan import plan
from agent.pools import declared
from agent.pools.spot_trace import SpotTrace
from agent.simulate.workflows.setting import SimulationResult, SimulationSetting
from agent.simulate.workflows.simulation import simulate
from agent.simulate.workflows.workflow import Job, WorkflowTask, ordered
from agent.simulate.workflows.world import Supply
from bench import leases, live_job, table
from bench.bodies import NAP_MS
from bench.chaos import Home
from harness.processes import ROOT

LAYERS = 3
#: what the naps say of themselves
NEEDS = Needs(interruptible=True, runtime_ms=NAP_MS)


def flow_of(tasks: int, seconds: float) -> None:
    """Three layers of naps, each behind one of the layer before."""
    from prefect import flow

    from agent import GovernedTaskRunner
    from bench.bodies import nap

    @flow(name="naps", task_runner=GovernedTaskRunner())
    def naps() -> None:
        width, above = tasks // LAYERS, [None] * (tasks // LAYERS)
        for _ in range(LAYERS):
            above = list(nap.map([seconds * (0.6 + 0.8 * n / width) for n in range(width)], above))
        for future in above:
            future.result()  # type: ignore[attr-defined]

    naps()


class Ran:
    """What the ledger has of the run."""

    def __init__(self, ledger: Ledger) -> None:
        p, o, x = t.placement, t.outcome, t.lease
        with ledger.reading() as db:
            done = db.execute(
                select(p.c.id, p.c.key, p.c.upstream, o.c.start_ms, o.c.run_ms)
                .select_from(p.join(o, (o.c.chain == p.c.chain) & (o.c.placement == p.c.id)))
                .where(o.c.result == t.RESULT_CODE["done"])
            ).all()
            self.leases = db.execute(select(x).where(x.c.granted_ms.is_not(None))).all()
            self.losses = db.execute(
                select(o.c.result).where(o.c.result.in_([t.RESULT_CODE[r] for r in ("lost", "preempted", "moved")]))
            ).all()
        self.begin = min(lease.asked_ms for lease in self.leases)
        self.end = max(row.start_ms + row.run_ms for row in done)
        # upstream names placements; a task is known by its last
        key_of = {str(row.id): row.key for row in done}
        self.tasks = [
            WorkflowTask(
                id=row.key, task_class="nap", run_ms=max(1, row.run_ms), needs=NEEDS,
                parents=tuple(key_of[up] for up in row.upstream.split(",") if up in key_of),
            )
            for row in done
        ]  # fmt: skip

    def startup_ms(self, pool: str, otherwise: int) -> int:
        """From the grant to the first task, as it was."""
        seen = leases.startup_ms(x for x in self.leases if x.pool == pool)
        return otherwise if seen is None else round(seen)

    def usd(self, pools: dict[str, Pool], traces: dict[str, SpotTrace]) -> float:
        """What the leases cost until the run's end."""
        played = {
            name: leases.trace_of(market, name, length_ms=self.end - self.begin) for name, market in traces.items()
        }
        return leases.usd(self.leases, self.end, pools, played, self._first)

    def _first(self, pool: str) -> int:
        return min(int(lease.asked_ms) for lease in self.leases if lease.pool == pool)


def simulated(ran: Ran, pools: dict[str, Pool], traces: dict[str, SpotTrace], seed: int) -> SimulationResult:
    """The same tasks through the simulator."""
    supplies = []
    for name, pool in pools.items():
        market = traces.get(name)
        trace = leases.trace_of(market, name, pool.max_workers, ran.end - ran.begin) if market is not None else None
        supplies.append(Supply(pool=replace(pool, startup_ms=ran.startup_ms(name, pool.startup_ms)), trace=trace))
    # as live: of the runtimes it knows what the tasks say, then what it sees; of a run without a deadline it is told no
    # graph
    setting = SimulationSetting(
        seed=seed,
        exact=False,
        noise=0.0,
        history=0,
        graphs=False,
        round_ms=100,
        refusal_ms=200,
        retry_ms=60_000,
        policy=Policy(),
    )
    return simulate([Job(name="naps", workflow=ordered("naps", ran.tasks), arrives_ms=0)], supplies, plan, setting)


def once(tasks: int, seconds: float, number: int) -> dict[str, Any]:
    """One run, live and simulated."""
    with tempfile.TemporaryDirectory() as name:
        folder = ROOT / "deployments/spot_traces"
        text = (
            (ROOT / "deployments/pools.yaml").read_text().replace("spot_trace: spot_traces/", f"spot_trace: {folder}/")
        )
        home = Home(Path(name), text.split("\n  gpu:")[0] + "\n")
        with home.up():
            flow = [sys.executable, "-m", "bench.live", "--flow", "--tasks", str(tasks), "--seconds", str(seconds)]
            subprocess.run(flow, env=home.env, cwd=ROOT, check=True, capture_output=True)
            time.sleep(25)  # idle workers end
        ledger = home.ledger()
        said = declared.read(home.folder / "pools.yaml")
        pools, traces = {pool.name: pool for pool in said.pools}, dict(said.spot_traces)
        ran = Ran(ledger)
        live, result = ran.usd(pools, traces), simulated(ran, pools, traces, number)
        billed = sum(lease.usd_micros or 0 for lease in ran.leases) / MICROS
        exact = sum(
            pools[x.pool].billed(x.granted_ms, x.ended_ms)
            if x.pool not in traces
            else leases.trace_of(traces[x.pool], x.pool, length_ms=x.ended_ms - ran.begin).cost(
                max(0, x.granted_ms - ran._first(x.pool)), x.ended_ms - ran._first(x.pool)
            )
            for x in ran.leases
        )
        return {
            "live_usd": live, "simulated_usd": result.usd_micros / MICROS, "ratio": result.usd_micros / MICROS / live,
            "live_seconds": (ran.end - ran.begin) / 1000, "simulated_seconds": max(result.ends.values()) / 1000,
            "live_losses": len(ran.losses), "simulated_losses": result.preemptions, "spend": billed / (exact / MICROS),
        }  # fmt: skip


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description="live against simulated")
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--flow", nargs="*", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--job", action="store_true", help="a long job over zones that play their traces fast")
    parser.add_argument("--traces", type=Path, help="folder of spot traces, with --job")
    parser.add_argument("--zones", default="us-east-1c,us-east-1d,us-east-1f")
    parser.add_argument("--start-hours", default="5,100,220")
    parser.add_argument("--speed", type=int, default=240, help="hours of the traces in one of the wall clock")
    parser.add_argument("--kill", type=int, default=2, help="how often the governor is killed while the job runs")
    said = parser.parse_args()
    if said.job:
        if said.flow is not None:
            return live_job.job_flow(*said.flow)
        if said.traces is None:
            parser.error("--job needs --traces DIR")
        return live_job.bench_job(said)
    if said.flow is not None:
        return flow_of(said.tasks, said.seconds)
    rows: list[dict[str, Any]] = []
    for number in range(said.runs):
        made = once(said.tasks, said.seconds, number)
        rows += [
            {"what": f"run {number}: leases, live $", "floor": "", "measured": made["live_usd"]},
            {"what": "simulated / live", "floor": "0.9 to 1.1", "measured": made["ratio"]},
            {
                "what": "seconds, live / simulated", "floor": "",
                "measured": f"{made['live_seconds']:.0f} / {made['simulated_seconds']:.0f}",
            },
            {
                "what": "workers or tasks taken, live / simulated", "floor": "",
                "measured": f"{made['live_losses']} / {made['simulated_losses']}",
            },
            {"what": "the ledger's spend / the leases priced anew", "floor": "0.99 to 1.01", "measured": made["spend"]},
        ]  # fmt: skip
    table.show("live against simulated", rows, said.json)
    return None


if __name__ == "__main__":
    main()
