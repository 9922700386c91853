"""One checkpointed job on real spot traces: the planner, the published policies and the clairvoyant optimum.

`python -m bench.placement long-job --data DIR [--quick] [--json FILE] [--chart FILE.svg] [--every-h H] [--processes N]`

Semantics: those of `agent.simulate.long_job.simulator.run`. The deadline is held and the work is deadline / ratio.
Starts overlap, one each two hours; the interval is of a moving-block bootstrap whose blocks are as long as the
deadline. The zone sets and starts on which the policy's setting was chosen are reported apart from those that were
held out.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from agent.simulate.long_job.bound import optimum
from agent.simulate.long_job.peers.simple import Fallback, FallbackAndBack, OnDemandOnly, Retries, SpotUntilLate
from agent.simulate.long_job.peers.skynomad import SkyNomad
from agent.simulate.long_job.peers.uniform import (
    ByAvailability,
    ByAvailabilityAndPrice,
    EagerFailover,
    UniformProgressOfJob,
)
from agent.simulate.long_job.policy import PlannedPolicy
from agent.simulate.long_job.protocol import LongJobPolicy
from agent.simulate.long_job.simulator import run
from agent.simulate.long_job.trace import ZoneTrace, job_of, read_egress, read_folder
from bench import table

OURS = "ours"
POLICIES: dict[str, Callable[[str], LongJobPolicy]] = {
    OURS: lambda cloud: PlannedPolicy(),
    "SkyNomad": lambda cloud: SkyNomad(h100=cloud == "h100"),
    "UP(S)": lambda cloud: EagerFailover(),
    "UP(A)": lambda cloud: ByAvailability(),
    "UP(AP)": lambda cloud: ByAvailabilityAndPrice(),
    "UP": lambda cloud: UniformProgressOfJob(),
    "greedy": lambda cloud: SpotUntilLate(),
    "fallback and back": lambda cloud: FallbackAndBack(),
    "fallback": lambda cloud: Fallback(),
    "spot with retries": lambda cloud: Retries(),
    "on demand": lambda cloud: OnDemandOnly(),
}
#: hours from start to deadline, as published
DEADLINE_H = {"v100": 59.908, "h100": 51.833}
RATIOS = (1.05, 1.1, 1.2, 1.5, 2.0)
#: cloud, name, zones, whether the setting was chosen on it
SETS: tuple[tuple[str, str, tuple[str, ...], bool], ...] = (
    ("v100", "published 3", ("us-east-1c", "us-east-2b", "us-west-2a"), True),
    ("v100", "west", ("us-west-2a", "us-west-2b", "us-west-2c"), False),
    ("v100", "scarce", ("us-east-1a", "us-east-1d", "us-east-1f"), False),
    ("v100", "mixed", ("us-east-1f", "us-east-2a", "us-west-2c"), False),
    (
        "h100",
        "published 6",
        ("us-central1-a", "us-west1-a", "europe-west1-c", "europe-west3-c", "asia-southeast1-b", "asia-south2-b"),
        True,
    ),
    ("h100", "east", ("us-east4-a", "us-east4-b", "us-east5-a"), False),
    ("h100", "scarce", ("us-west1-b", "europe-west3-c", "asia-southeast1-c", "us-west1-a"), False),
    ("h100", "central and west", ("us-central1-b", "us-central1-c", "us-west1-a", "us-west1-b"), False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A run to make."""

    data: Path
    cloud: str
    name: str
    zones: tuple[str, ...]
    ratio: float
    start: int
    policies: tuple[str, ...]


@cache
def _traces(data: Path, cloud: str) -> dict[str, ZoneTrace]:
    return read_folder(data / "spot" / cloud)


@cache
def _egress(data: Path) -> dict[tuple[str, str], float]:
    return read_egress(data / "spot" / "aws_egress_usd_per_gb.csv")


def one(cell: Cell) -> dict[str, Any]:
    """Every policy and the optimum from one start; no run may cost less than the optimum."""
    zones = [_traces(cell.data, cell.cloud)[z] for z in cell.zones]
    deadline_s = DEADLINE_H[cell.cloud] * 3600
    job = job_of(zones, work_s=deadline_s / cell.ratio, deadline_s=deadline_s, egress=_egress(cell.data))
    bound = optimum(zones, job, cell.start)
    out: dict[str, Any] = {"start": cell.start, "bound": bound, "usd": {}, "missed": {}, "seconds": {}}
    for name in cell.policies:
        begin = time.perf_counter()
        done = run(POLICIES[name](cell.cloud), zones, job, cell.start)
        assert done.missed or done.cost_usd >= bound - 1e-6, (cell, name, done, bound)
        out["usd"][name], out["missed"][name] = done.cost_usd, done.missed
        out["seconds"][name] = time.perf_counter() - begin
    return out


def interval(values: Sequence[float], block: int, seed: int = 1, draws: int = 2000) -> tuple[float, float]:
    """90 % interval of the mean by a circular moving-block bootstrap (Politis and Romano 1992)."""
    x, rng = np.asarray(values), np.random.default_rng(seed)
    block = max(1, min(block, len(x)))
    firsts = rng.integers(0, len(x), (draws, -(-len(x) // block)))
    picks = (firsts[:, :, None] + np.arange(block)).reshape(draws, -1)[:, : len(x)] % len(x)
    low, high = np.quantile(x[picks].mean(1), (0.05, 0.95))
    return float(low), float(high)


def rows(
    found: dict[tuple[str, str, float], list[dict[str, Any]]], every_h: float, tuned: set[tuple[str, str]]
) -> list[dict[str, Any]]:
    """A row for each cloud, zone set, ratio and policy; costs over runs that kept the deadline alone."""
    out = []
    for (cloud, name, ratio), runs in found.items():
        ours = np.array([r["usd"][OURS] for r in runs])
        for policy in runs[0]["usd"]:
            kept = [n for n, r in enumerate(runs) if not r["missed"][policy]]
            over = [runs[n]["usd"][policy] / runs[n]["bound"] for n in kept]
            low, high = interval(over, round(DEADLINE_H[cloud] / every_h)) if over else (float("nan"),) * 2
            usd = float(np.mean([runs[n]["usd"][policy] for n in kept])) if kept else float("nan")
            out.append(
                {
                    "traces": cloud, "zones": name, "set": "tuned on" if (cloud, name) in tuned else "held out",
                    "ratio": ratio, "policy": policy, "starts": len(runs), "missed": len(runs) - len(kept),
                    "mean $": usd, "over bound": float(np.mean(over)) if over else float("nan"),
                    "90 %": f"{low:.3f}–{high:.3f}", "worst": max(over, default=float("nan")),
                    "ours / it": float(np.mean(ours[kept])) / usd if kept else float("nan"),
                    "s a run": float(np.mean([r["seconds"][policy] for r in runs])),
                }
            )  # fmt: skip
    return out


def chart(found: list[dict[str, Any]], into: Path) -> None:
    """Cost over the bound by policy, a panel for each cloud and ratio, as SVG."""
    panels = sorted({(r["traces"], r["ratio"]) for r in found})
    names = list(dict.fromkeys(r["policy"] for r in found))
    width, height, bar = 420, 40 + 18 * len(names), 220
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11" width="{2 * width}" '
        f'height="{height * -(-len(panels) // 2)}">'
    ]
    for n, (cloud, ratio) in enumerate(panels):
        x, y = n % 2 * width, n // 2 * height
        parts.append(
            f'<text x="{x + 8}" y="{y + 18}" font-weight="bold">{cloud}, ratio {ratio:g}: cost over optimum</text>'
        )
        for k, name in enumerate(names):
            over = [r["over bound"] for r in found if (r["traces"], r["ratio"], r["policy"]) == (cloud, ratio, name)]
            mean = float(np.nanmean(over)) if np.isfinite(over).any() else float("nan")
            if not np.isfinite(mean):
                continue
            long = min(1.0, (mean - 1) / 1.5) * bar
            top = y + 28 + 18 * k
            parts.append(f'<text x="{x + 8}" y="{top + 11}">{name}</text>')
            parts.append(
                f'<rect x="{x + 130}" y="{top}" width="{max(long, 1):.1f}" height="13" '
                f'fill="{"#1a7f37" if name == OURS else "#8c959f"}"/>'
            )
            parts.append(f'<text x="{x + 134 + long:.1f}" y="{top + 11}">{mean:.3f}</text>')
    into.write_text("\n".join([*parts, "</svg>\n"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """The table, and the same as JSON and as a chart."""
    parser = argparse.ArgumentParser(prog="bench.placement long-job", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds spot/v100 and spot/h100")
    parser.add_argument(
        "--quick", action="store_true", help="the published zones, three starts, four policies: about a minute"
    )
    parser.add_argument("--every-h", type=float, default=2.0, help="hours between starts")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    given = parser.parse_args(arguments)
    data = given.data.resolve()
    every_h = 120.0 if given.quick else given.every_h
    policies = (OURS, "SkyNomad", "UP(S)", "greedy") if given.quick else tuple(POLICIES)
    cells = []
    for cloud, name, zones, tuned in SETS:
        if given.quick and not tuned:
            continue
        length = min(_traces(data, cloud)[z].available.size for z in zones)
        tick_s = _traces(data, cloud)[zones[0]].tick_s
        room = length - int(-(-DEADLINE_H[cloud] * 3600 // tick_s))
        starts = range(0, room + 1, max(1, round(every_h * 3600 / tick_s)))
        for ratio in (1.05, 1.5) if given.quick else RATIOS:
            cells += [
                Cell(data=data, cloud=cloud, name=name, zones=zones, ratio=ratio, start=s, policies=policies)
                for s in (list(starts)[:3] if given.quick else starts)
            ]
    found: dict[tuple[str, str, float], list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(given.processes) as pool:
        for cell, result in zip(cells, pool.map(one, cells, chunksize=4), strict=True):
            found.setdefault((cell.cloud, cell.name, cell.ratio), []).append(result)
    lines = rows(found, every_h, {(cloud, name) for cloud, name, _, tuned in SETS if tuned})
    table.show("One checkpointed job on spot traces", lines, None)
    if given.json is not None:
        runs = [{"traces": c, "zones": z, "ratio": r, "runs": v} for (c, z, r), v in found.items()]
        given.json.write_text(json.dumps({"machine": platform.platform(), "rows": lines, "cells": runs}, indent=1))
    if given.chart is not None:
        chart(lines, given.chart)


if __name__ == "__main__":
    main()
