"""How fast the simulator is: task events (ready, started, ended) a second, planning included, on one core.

`python -m bench.simulator [--data ../shared/data] [--tasks 340000] [--json FILE]`

Runs of a synthetic epigenomics graph of about 12,000 tasks (WfChef; synthetic) arrive an hour apart and go through the
planner, on two spot zones by their traces and on demand.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from agent.planner.plan import plan
from agent.simulate.workflows.setting import SimulationSetting
from agent.simulate.workflows.simulation import simulate
from agent.simulate.workflows.workflow import Job, read
from bench import table
from bench.placement_workflows import HOUR, pools


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser(description="the simulator's speed")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--tasks", type=int, default=340_000)
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    workflow = read(said.data / "workflows-synthetic/epigenomics-12000.json.gz")
    runs = max(1, round(said.tasks / len(workflow.tasks)))
    jobs = [Job(name=f"run{n}", workflow=workflow, arrives_ms=n * HOUR) for n in range(runs)]
    supplies = pools(said.data, ("us-west-2a", "us-west-2b"), 20 * HOUR, (runs + 48) * HOUR)
    begin, used = time.perf_counter(), time.process_time()
    result = simulate(jobs, supplies, plan, SimulationSetting(exact=False, round_ms=5_000))
    wall, cpu = time.perf_counter() - begin, time.process_time() - used
    events = 3 * runs * len(workflow.tasks)
    table.show(
        f"{runs} runs of {len(workflow.tasks):,} tasks, {len(result.ends)} ended, {result.rounds:,} plans",
        [
            {"what": "task events", "floor": "", "measured": events},
            {"what": "seconds, wall", "floor": "", "measured": wall},
            {"what": "seconds, this process's own", "floor": "", "measured": cpu},
            {"what": "own seconds for a million task events", "floor": "≤ 120", "measured": cpu / events * 1e6},
        ],
        said.json,
    )


if __name__ == "__main__":
    main()
