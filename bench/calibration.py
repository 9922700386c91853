"""How often the estimates' intervals cover what happens.

`python -m bench.calibration [--data ../shared/data] [--json FILE]`

Runtimes: for each class of each real workflow, executions are drawn from the class's real runtimes with a log-normal
error of 15 %, one after another; before each the estimate is made from those before, and its quantiles are held against
the next. Hazards: each spot zone is watched through its trace as one worker that is started again whenever there is
capacity; after each day the losses of the next are held against the intervals of what was learned so far.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from random import Random
from typing import Any

from agent.model.needs import Needs
from agent.model.snapshot import Group
from agent.planner.estimate import estimate
from agent.simulate.workflows import trace
from agent.simulate.workflows.workflow import read
from agent.state.statistics import Statistics
from bench import table

HOUR = 3_600_000
#: of intervals of losses
LEVELS = (0.5, 0.8, 0.9)
#: quantiles, in standard deviations of the logarithm
QUANTILES = {"50 %": 0.0, "80 %": 0.842, "90 %": 1.282, "95 %": 1.645}


def runtimes(data: Path) -> list[dict[str, Any]]:
    """How often the next runtime lies below the estimate's quantile, by how many executions are known."""
    r, below = Random(0), defaultdict(lambda: [0, 0])
    for path in sorted((data / "workflows").glob("*.json.gz")):
        found: dict[str, list[int]] = defaultdict(list)
        for task in read(path).tasks:
            found[task.task_class].append(task.run_ms)
        for name, pool in sorted(found.items()):
            statistics = Statistics()
            group = Group(
                id="g", task_class=name, name=name, needs=Needs(), root_run="", flow_run="", ready=1, since_ms=0
            )
            for n in range(40):
                ms = max(1, round(r.choice(pool) * r.lognormvariate(0, 0.15)))
                known = {(s.task_class, s.pool): s for s in statistics.of_classes({name})}
                bucket = "3 to 9" if 3 <= n < 10 else "10 to 39" if n >= 10 else ""
                for label, sigmas in QUANTILES.items():
                    if bucket:
                        counts = below[bucket, label]
                        counts[0] += ms <= estimate(group, "here", known, sigmas).high_ms
                        counts[1] += 1
                statistics.record_runtime(name, "here", 0, ms, "")
    return [
        {
            "what": f"runtime at most its {label} quantile, {bucket} executions known",
            "claimed": label,
            "measured %": 100 * hit / of,
            "of": of,
        }
        for (bucket, label), (hit, of) in sorted(below.items())
    ]


def hazards(data: Path) -> list[dict[str, Any]]:
    """How often a day's losses lie in the intervals of what was learned before it."""
    covered, of = dict.fromkeys(LEVELS, 0), 0
    for path in sorted((data / "spot/v100").glob("*.json.gz")):
        zone, statistics = trace.read(path), Statistics()
        per_day = 24 * HOUR // zone.step_ms
        begun: int | None = None
        for day in range(len(zone.capacity) // per_day):
            up, lives = 0, list[int]()
            for step in range(day * per_day, (day + 1) * per_day):
                if zone.capacity[step]:
                    up += 1
                    begun = step if begun is None else begun
                elif begun is not None:
                    lives.append((step - begun) * zone.step_ms)
                    begun = None
            hours = up * zone.step_ms / HOUR
            if day and hours >= 1:
                for level in LEVELS:
                    low, high = statistics.losses(zone.name, statistics.hazard(zone.name, 100), hours, level)
                    covered[level] += low <= len(lives) <= high
                of += 1
            for ms in lives:
                statistics.record_worker_life(zone.name, ms, True)
    return [
        {
            "what": f"a day's losses in the {level:.0%} interval of what was learned before",
            "claimed": f"{100 * level:.0f} %",
            "measured %": 100 * hits / of,
            "of": of,
        }
        for level, hits in covered.items()
    ]


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description="calibration of estimates")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    table.show("calibration", [*runtimes(said.data), *hazards(said.data)], said.json)


if __name__ == "__main__":
    main()
