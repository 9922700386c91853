"""A long job on real workers over zones that play real spot traces fast, against the same trace in both simulators.

`python -m bench.live --job --traces DIR [--zones A,B,C] [--start-hours 5,100,220] [--speed 240] [--kill 2]
[--json FILE]`

Live: `orc up` with one spot pool a zone, each playing its trace from the same instant, and one pool on demand; a
governed flow of one task that works for hours of the traces' time and keeps checkpoints. The governor is killed
`--kill` times while it runs, and started again by its supervisor. Simulated: the same work, traces, start-ups and slack
through the simulator of long jobs, and through the governor's own rounds in virtual time. Compared: what the leases
cost until the job's end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.model import codec
from agent.model.needs import Needs
from agent.model.pools import Pool
from agent.model.snapshot import Policy
from agent.model.units import MICROS
from agent.planner.plan import plan
from agent.pools import declared, spot_trace
from agent.pools.spot_trace import SpotTrace
from agent.simulate.long_job.policy import PlannedPolicy
from agent.simulate.long_job.simulator import run
from agent.simulate.long_job.trace import job_of, of_zone
from agent.simulate.workflows.setting import SimulationSetting
from agent.simulate.workflows.simulation import simulate
from agent.simulate.workflows.trace import CapacityTrace
from agent.simulate.workflows.workflow import Job, WorkflowTask, ordered
from agent.simulate.workflows.world import Supply
from bench import leases, table
from harness.instance import Instance
from harness.processes import ROOT

#: hours of the traces' time that the job works, and that it has for it as the planner counts them
WORK_H, LEFT_H = 16.0, 22.0
#: between checkpoints, seconds of the wall clock
STEP_S = 0.25
#: an author's word is a median: with its spread of 0.7 the mean is so many times as much, and the quantile deadlines
#: are met with
MEAN, HIGH = 1.2776, 3.163
#: the traces begin so long after `orc up` is asked for, seconds
LEAD_S = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is played."""

    zones: tuple[SpotTrace, ...]
    speed: int
    begins: float

    @property
    def work_s(self) -> float:
        """Seconds of the wall clock that the job works."""
        return WORK_H * 3600 / self.speed

    @property
    def author_s(self) -> float:
        """What its author says: such that the mean is right."""
        return self.work_s / MEAN

    @property
    def deadline_s(self) -> float:
        """From the beginning: the planner keeps free what the work may take beyond its mean."""
        return LEFT_H * 3600 / self.speed + self.author_s * (HIGH - MEAN) + Policy().margin_ms / 1000

    def traces(self) -> dict[str, CapacityTrace]:
        """By zone, as capacity for one worker."""
        return {zone.zone: leases.trace_of(zone, zone.zone) for zone in self.zones}

    def needs(self) -> Needs:
        """What the task says of itself."""
        return Needs(interruptible=True, runtime_ms=round(self.author_s * 1000), checkpoint_ms=round(STEP_S * 1000))


def job_flow(begins: float, work_s: float, author_s: float, deadline_s: float) -> None:
    """One task that works in steps and keeps how many it has done."""
    from prefect import flow

    from agent import GovernedTaskRunner, needs
    from bench.bodies import stepping

    @needs(deadline=f"{deadline_s:.3f}s")
    @flow(name="long-job", task_runner=GovernedTaskRunner())
    def long_job() -> int:
        with needs(interruptible=True, runtime=f"{author_s:.3f}s", checkpoint_interval=f"{STEP_S}s"):
            done: int = stepping.submit(round(work_s / STEP_S), STEP_S).result()
        return done

    if (late := time.time() - begins) > 0:
        raise SystemExit(
            f"the traces began {late:.0f} s before the flow could: this machine needs longer to start ORC (LEAD_S)"
        )
    time.sleep(-late)
    assert long_job() == round(work_s / STEP_S)


def window(traces: Path, zone: str, start_h: float, speed: int, begins: float) -> dict[str, Any]:
    """A part of a zone's trace, played from an instant on."""
    [file] = sorted(traces.glob(f"{zone}_*.json.gz")) or sorted(traces.glob(f"{zone}*.json*"))
    trace = spot_trace.read(file)
    first = round(start_h * 3600 / trace.gap_seconds)
    last = first + round(4 * LEFT_H * 3600 / trace.gap_seconds)
    return {
        "zone": trace.zone, "gap_seconds": trace.gap_seconds,
        "available": [int(up) for up in trace.available[first:last]],
        "spot_usd_per_hour": list(trace.spot_usd_per_hour[first:last]),
        "on_demand_usd_per_hour": trace.on_demand_usd_per_hour,
        "play": {
            "seconds_per_sample": trace.gap_seconds / speed, "notice_seconds": 0.4, "launch_delay_seconds": 0.0,
            "begins_unix_seconds": begins,
        },
    }  # fmt: skip


def pools_of(folder: Path, zones: Sequence[dict[str, Any]]) -> str:
    """A spot pool a zone and one on demand."""
    out = ["pools:"]
    size = (
        "worker: {cpus: 1, memory: 1 GiB, slots: 1}\n    workers: {max: 1}\n    startup: 4s\n    idle: 1s\n"
        "    provider: local"
    )
    for zone in zones:
        (folder / f"{zone['zone']}.json").write_text(json.dumps(zone))
        labels = f"labels: {{zone: {zone['zone']}}}"
        out.append(
            f"  {zone['zone']}:\n    market: spot\n    {size}\n    {labels}\n    spot_trace: {zone['zone']}.json"
        )
    dear, home = zones[0]["on_demand_usd_per_hour"], zones[0]["zone"]
    out.append(f"  on-demand:\n    market: on-demand\n    {size}\n    labels: {{zone: {home}}}\n    price: {dear}")
    return "\n".join(out) + "\n"


class Killer:
    """Kills the governor at equal times while the job runs."""

    def __init__(self, home: Instance, scene: Scene, times: int) -> None:
        self.killed = 0
        self._home, self._stop = home, threading.Event()
        self._at = [scene.begins + scene.work_s * (n + 1) / (times + 1) for n in range(times)]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for at in self._at:
            if self._stop.wait(max(0.0, at - time.time())):
                return
            os.kill(self._home.services()["governor"], signal.SIGKILL)
            self.killed += 1

    def end(self) -> int:
        """How often it did."""
        self._stop.set()
        self._thread.join()
        return self.killed


class LiveJob:
    """What the ledger has of the run."""

    def __init__(self, ledger: Ledger, scene: Scene) -> None:
        p, o = t.placement, t.outcome
        with ledger.reading() as db:
            done = select(o.c.start_ms, o.c.run_ms).where(o.c.result == t.RESULT_CODE["done"])
            [last] = db.execute(done).all()
            self.placements = len(db.execute(select(p.c.id)).all())
            self.leases = db.execute(select(t.lease).where(t.lease.c.granted_ms.is_not(None))).all()
            self.refused = len(db.execute(select(t.lease.c.id).where(t.lease.c.granted_ms.is_(None))).all())
            bodies = [codec.decode(dict, ledger.part(body)) for (body,) in db.execute(select(t.decision.c.body))]
        self.reasons = [str(body["reason"]) for body in bodies]
        self.end_ms, self.begins_ms = last.start_ms + last.run_ms, round(scene.begins * 1000)

    def startup_ms(self) -> float:
        """From the grant to the join, in the mean."""
        seen = leases.startup_ms(self.leases)
        assert seen is not None, "no worker joined"
        return seen

    def usd(self, pools: dict[str, Pool], scene: Scene) -> float:
        """What the leases cost until the job's end."""
        return leases.usd(self.leases, self.end_ms, pools, scene.traces(), lambda pool: self.begins_ms)


def simulated(scene: Scene, startup_ms: float) -> float:
    """Dollars by the simulator of long jobs: hours of the traces, so as many times as dear."""
    zones = [of_zone(zone, zone.zone) for zone in scene.zones]
    egress = {(a.region, b.region): 0.0 for a in zones for b in zones}
    job = job_of(
        zones, work_s=WORK_H * 3600, deadline_s=LEFT_H * 3600, startup_s=startup_ms / 1000 * scene.speed, egress=egress
    )
    outcome = run(PlannedPolicy(), zones, job)
    assert not outcome.missed
    return outcome.cost_usd / scene.speed


def governed(scene: Scene, pools: dict[str, Pool], startup_ms: float) -> float:
    """Dollars by the governor's own rounds in virtual time."""
    traces = scene.traces()
    supplies = [
        Supply(
            pool=replace(pools[name], startup_ms=round(startup_ms)),
            trace=traces.get(name),
        )
        for name in pools
    ]
    task = WorkflowTask(id="job", task_class="job", run_ms=round(scene.work_s * 1000), needs=scene.needs())
    setting = SimulationSetting(
        exact=False,
        noise=0.0,
        history=0,
        graphs=False,
        round_ms=50,
        refusal_ms=20,
        tick_ms=500,
    )
    job = Job(name="job", workflow=ordered("job", [task]), arrives_ms=0, deadline_ms=round(scene.deadline_s * 1000))
    result = simulate([job], supplies, plan, setting)
    assert not result.missed
    return result.usd_micros / MICROS


def once(traces: Path, zones: Sequence[str], start_h: float, speed: int, kills: int) -> dict[str, Any]:
    """One run, live and simulated."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begins = time.time() + LEAD_S
        said = [window(traces, zone, start_h, speed, begins) for zone in zones]
        home = Instance(folder, pools_of(folder, said), ORC_GRAPH_URL="off")
        scene = Scene(zones=tuple(spot_trace.of(zone, str(zone["zone"])) for zone in said), speed=speed, begins=begins)
        with home.up():
            numbers = [begins, scene.work_s, scene.author_s, scene.deadline_s]
            flow = [sys.executable, "-m", "bench.live", "--job", "--flow", *map(str, numbers)]
            killer = Killer(home, scene, kills)
            with (folder / "flow.log").open("w") as log:
                done = subprocess.run(flow, env=home.env, cwd=ROOT, check=False, stdout=log, stderr=log)
            killed = killer.end()
            if done.returncode:
                raise RuntimeError((folder / "flow.log").read_text()[-4000:])
            time.sleep(4)  # idle workers end
        faults = home.faults()
        pools = {pool.name: pool for pool in declared.read(folder / "pools.yaml").pools}
        job = LiveJob(home.ledger(), scene)
        live = job.usd(pools, scene)
        startup_ms = job.startup_ms()
        ended_s = (job.end_ms - job.begins_ms) / 1000
        return {
            "live": live, "simulated": simulated(scene, startup_ms), "virtual": governed(scene, pools, startup_ms),
            "hours": ended_s * speed / 3600, "late": ended_s > scene.deadline_s,
            "startup_min": startup_ms * speed / 60_000, "placements": job.placements, "leases": len(job.leases),
            "refused": job.refused, "killed": killed, "faults": len(faults),
            "waits": sum("waits for" in why for why in job.reasons),
            "on_demand": WORK_H / speed * pools["on-demand"].price[0].usd_micros_per_hour / MICROS,
        }  # fmt: skip


def bench_job(said: argparse.Namespace) -> None:
    """Every start, and one table."""
    rows: list[dict[str, Any]] = []
    total = dict.fromkeys(("live", "simulated", "virtual"), 0.0)
    for start_h in map(float, said.start_hours.split(",")):
        made = once(said.traces, said.zones.split(","), start_h, said.speed, said.kill)
        for key in total:
            total[key] += made[key]
        head = f"from hour {start_h:g}: "
        rows += [
            {
                "what": head + "leases, live $ / all on demand", "floor": "",
                "measured": f"{made['live']:.4f} / {made['on_demand']:.4f}",
            },
            {"what": head + "live / simulator of long jobs", "floor": "", "measured": made["live"] / made["simulated"]},
            {
                "what": head + "live / the governor's rounds in virtual time", "floor": "",
                "measured": made["live"] / made["virtual"],
            },
            {
                "what": head + f"hours of {LEFT_H:g}, late", "floor": "not late",
                "measured": f"{made['hours']:.1f}, {'LATE' if made['late'] else 'in time'}",
            },
            {
                "what": head + "placements, leases, refusals, waits", "floor": "",
                "measured": f"{made['placements']}, {made['leases']}, {made['refused']}, {made['waits']}",
            },
            {
                "what": head + "governor killed; faults of the ledger", "floor": f"{said.kill}; 0",
                "measured": f"{made['killed']}; {made['faults']}",
            },
            {"what": head + "a start-up, minutes of the trace", "floor": "", "measured": made["startup_min"]},
        ]  # fmt: skip
        print(json.dumps(made), file=sys.stderr, flush=True)
    rows += [
        {
            "what": "all: live / simulator of long jobs", "floor": "0.9 to 1.1",
            "measured": total["live"] / total["simulated"],
        },
        {
            "what": "all: live / the governor's rounds in virtual time", "floor": "0.9 to 1.1",
            "measured": total["live"] / total["virtual"],
        },
    ]  # fmt: skip
    table.show("a long job, live against simulated", rows, said.json)
