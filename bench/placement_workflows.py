"""Workflows with deadlines on spot: the planner, its peers, the bound, and what could have been done.

`python -m bench.placement_workflows --data ../shared/data [--quick] [--seeds 3,4,5] [--workflows NAME,…]
[--noisy] [--unscaled] [--gpu] [--json FILE] [--chart FILE]`

Semantics. Runs of one real workflow (WfCommons) arrive at random instants over three days; each has `ratio` times the
time that on-demand workers without limit need from nothing until its deadline. A worker is a p3.2xlarge as four slots;
spot in three or four zones by the traces' availability, eight workers a zone while it is 1 and none while it is 0 (all
are taken, without notice); on demand is always granted at $3.06. Start-up of 5 min is billed, one minute is the least
that is billed, a refused launch is answered after 30 s. Tasks keep a checkpoint each 15 min; nothing else survives a
loss. Policies know prices, their own workers, answers and losses. Runtimes are the real ones times a factor, which is
printed: the longest path is brought to four hours, or the work of a run to 60 worker-hours, whichever is less; unscaled
with `--unscaled`. With `--gpu` the class with the most work becomes an injected GPU stage: ResNet-50 (batch 128) as
measured in Gavel, so many times faster on the V100 of these workers as there than on a K80, and p2.xlarge (K80, four
slots) is on demand at $0.90 besides; a task of the stage takes a GPU for itself. Exact: each runtime is told to within
5 %, rounded up; noisy: classes are told by three earlier runs, and every execution is off by a log-normal factor of
15 %.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from agent.model.pools import Pool, PriceStep
from agent.planner.plan import plan
from agent.simulate.workflows import trace
from agent.simulate.workflows.bound import per_task, time_indexed
from agent.simulate.workflows.ensemble import arriving, checkpointed
from agent.simulate.workflows.hindsight import hindsight
from agent.simulate.workflows.peers.every import WORKFLOW_PEERS
from agent.simulate.workflows.setting import SimulationResult, SimulationSetting
from agent.simulate.workflows.simulation import Planner, simulate
from agent.simulate.workflows.workflow import Job, Workflow, read, with_gpu_stage
from agent.simulate.workflows.world import Supply
from bench import table

HOUR, MINUTE = 3_600_000, 60_000
STARTUP_MS, SLOTS, WORKERS, ON_DEMAND_USD = 5 * MINUTE, 4, 8, 3.06
GPU_STAGE, K80_USD = "('ResNet-50 (batch size 128)', 1)", 0.90
#: zones by seed; what was tuned on comes first
ZONES = (
    ("us-west-2a", "us-east-2b", "us-east-1c"),
    ("us-west-2b", "us-east-1f", "us-east-2a", "us-east-1d"),
    ("us-east-1a", "us-west-2c", "us-east-1d"),
)
#: the policy was tuned on these workflows with seeds 0 to 2; the others are reported apart
TUNED = ("soykb", "1000genome", "cycles", "bacass", "montage-chameleon-2mass-005d", "blast")
DAYS, RUNS = 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One ensemble."""

    workflow: str
    seed: int
    factor: float
    jobs: tuple[Job, ...]
    supplies: tuple[Supply, ...]


def gpu_factor(data: Path) -> float:
    """How many times faster a V100 trains ResNet-50 than a K80 (Narayanan et al., OSDI 2020)."""
    said = json.loads(gzip.decompress((data / "gpu/gavel_throughputs.json.gz").read_bytes()))
    v100, k80 = (float(said[model][GPU_STAGE]["null"]) for model in ("v100", "k80"))
    return v100 / k80


def staged(workflow: Workflow, factor: float) -> Workflow:
    """The workflow with its largest class as a GPU stage."""
    work: dict[str, int] = {}
    for task in workflow.tasks:
        work[task.task_class] = work.get(task.task_class, 0) + task.run_ms
    return with_gpu_stage(workflow, max(work, key=lambda name: (work[name], name)), "v100", factor, 15 * MINUTE)


def scaled(workflow: Workflow, unscaled: bool) -> tuple[Workflow, float]:
    """The workflow with the stated factor: a path of four hours or 60 worker-hours of work, whichever is less."""
    factor = 1.0 if unscaled else min(4 * HOUR / workflow.path_ms, 60 * HOUR * SLOTS / workflow.work_ms)
    return workflow.scaled(factor), factor


def pools(data: Path, zones: tuple[str, ...], start_ms: int, length_ms: int, gpu: bool) -> tuple[Supply, ...]:
    """Spot zones by their traces, and on demand."""

    def pool(name: str, market: Any, usd_micros: int, most: int, model: str = "v100") -> Pool:
        return Pool(
            name=name, market=market, cpus=SLOTS, memory_mib=61 * 1024, slots=SLOTS, max_workers=most,
            startup_ms=STARTUP_MS, idle_ms=5 * MINUTE, min_billing_ms=MINUTE,
            interruptions_per_1000_hours=100 if market == "spot" else 0, gpus=1 if gpu else 0,
            gpu_model=model if gpu else None, provider="simulated",
            price=(PriceStep(since_ms=0, usd_micros_per_hour=usd_micros),),
        )  # fmt: skip

    out = []
    for zone in zones:
        part = trace.read(data / f"spot/v100/{zone}_v100_1.json.gz", WORKERS).part(start_ms, length_ms)
        out.append(Supply(pool=pool(zone, "spot", part.usd_micros_per_hour[0], WORKERS), trace=part))
    out.append(Supply(pool=pool("on-demand", "on-demand", round(ON_DEMAND_USD * 1e6), 1000)))
    if gpu:
        out.append(Supply(pool=pool("on-demand-k80", "on-demand", round(K80_USD * 1e6), 1000, "k80")))
    return tuple(out)


def cell(data: Path, name: str, seed: int, ratio: float, unscaled: bool, gpu: bool = False) -> Cell:
    """An ensemble of a workflow under a seed."""
    workflow, factor = scaled(read(data / f"workflows/{name}.json.gz"), unscaled)
    tasks = checkpointed(workflow, 15 * MINUTE)
    jobs = arriving(staged(tasks, gpu_factor(data)) if gpu else tasks, RUNS, DAYS * 24 * HOUR, ratio, STARTUP_MS, seed)
    # the start in the trace moves with the seed, so that no two seeds see the same spells
    supplies = pools(data, ZONES[seed % len(ZONES)], (20 + 83 * seed) * HOUR, (DAYS * 24 + 24) * HOUR, gpu)
    return Cell(workflow=name, seed=seed, factor=factor, jobs=tuple(jobs), supplies=supplies)


def measured(
    one: Cell, policies: dict[str, Callable[[], Planner]], setting: SimulationSetting, search: int
) -> list[dict[str, Any]]:
    """Every policy on one ensemble, beside the bounds and the best in hindsight; `cost >= bound` is asserted."""
    setting = replace(setting, seed=one.seed)
    bounds = per_task(one.jobs, one.supplies), time_indexed(one.jobs, one.supplies)
    results: dict[str, SimulationResult] = {}
    out = []
    for name, made in policies.items():
        begin = time.perf_counter()
        results[name] = result = simulate(one.jobs, one.supplies, made(), setting)
        out.append(_row(one, name, result, bounds, time.perf_counter() - begin))
    begin = time.perf_counter()
    feasible = [result for result in results.values() if not result.missed]
    best = hindsight(one.jobs, one.supplies, setting, search, feasible)
    out.append(_row(one, "in hindsight", best, bounds, time.perf_counter() - begin))
    for row in out:
        # noise moves the work itself, so the bound of the told runtimes holds for exact ones
        assert row["missed"] or not setting.exact or row["usd"] >= row["bound_usd"] * 0.999, row
    return out


def _row(one: Cell, policy: str, result: SimulationResult, bounds: tuple[int, int], seconds: float) -> dict[str, Any]:
    return {
        "workflow": one.workflow, "seed": one.seed, "factor": round(one.factor, 2), "policy": policy,
        "usd": result.usd_micros / 1e6, "on_demand_usd": result.by_pool.get("on-demand", 0) / 1e6,
        "missed": len(result.missed), "runs": len(one.jobs), "preemptions": result.preemptions,
        "refusals": result.refusals, "workers": len(result.spans), "events": result.events,
        "bound_usd": max(bounds) / 1e6, "per_task_bound_usd": bounds[0] / 1e6, "seconds": seconds,
    }  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a policy: total dollars (mean over seeds, and their spread), misses, ratios."""
    seeds = sorted({row["seed"] for row in rows})
    total: dict[str, dict[int, float]] = {}
    for row in rows:
        total.setdefault(row["policy"], {}).setdefault(row["seed"], 0.0)
        total[row["policy"]][row["seed"]] += row["usd"]
    bound = sum(row["bound_usd"] for row in rows if row["policy"] == "orc") / len(seeds)
    orc = {(row["workflow"], row["seed"]): row["usd"] for row in rows if row["policy"] == "orc"}
    out = []
    for policy, by_seed in total.items():
        mine = [row for row in rows if row["policy"] == policy]
        mean = sum(by_seed.values()) / len(seeds)
        by_workflow: dict[str, list[float]] = {}
        for row in mine:
            found = by_workflow.setdefault(row["workflow"], [0.0, 0.0])
            found[0] += row["usd"]
            found[1] += orc[row["workflow"], row["seed"]]
        out.append(
            {
                "policy": policy, "usd a seed": mean, "least": min(by_seed.values()), "most": max(by_seed.values()),
                "missed": sum(row["missed"] for row in mine), "of": sum(row["runs"] for row in mine),
                "over bound": mean / bound, "over orc": mean / (sum(orc.values()) / len(seeds)),
                "orc dearer at worst, %": max(100 * (b / a - 1) for a, b in by_workflow.values()),
            }
        )  # fmt: skip
    return sorted(out, key=lambda row: row["usd a seed"])


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The floors: the part of the gap that is closed between the cheapest peer without a miss and the best in
    hindsight.
    """
    known = {row["policy"]: row for row in summary(rows)}
    peers = [row for name, row in known.items() if name not in ("orc", "in hindsight") and not row["missed"]]
    if not peers or "in hindsight" not in known:
        return {"cheapest peer without a miss": None}
    best = min(peers, key=lambda row: row["usd a seed"])
    gap = best["usd a seed"] - known["in hindsight"]["usd a seed"]
    return {
        "cheapest peer without a miss": best["policy"],
        "gap closed": (best["usd a seed"] - known["orc"]["usd a seed"]) / gap if gap > 0 else None,
        "orc dearer than it at worst on a workflow, %": best["orc dearer at worst, %"],
        "orc missed": known["orc"]["missed"],
    }


def chart(rows: list[dict[str, Any]]) -> str:
    """Bars of dollars a seed, as one SVG."""
    found = summary(rows)
    most = max(row["usd a seed"] for row in found)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="820" height="{28 * len(found) + 20}" '
        f'font-family="sans-serif" font-size="13">'
    ]
    for n, row in enumerate(found):
        y, width = 10 + 28 * n, 420 * row["usd a seed"] / most
        color = "#1a7f37" if row["policy"] == "orc" else "#8c959f" if not row["missed"] else "#cf222e"
        missed = f", {row['missed']} of {row['of']} missed" if row["missed"] else ""
        lines.append(f'<text x="215" y="{y + 14}" text-anchor="end">{escape(row["policy"])}</text>')
        lines.append(f'<rect x="225" y="{y}" width="{width:.1f}" height="18" fill="{color}"/>')
        lines.append(f'<text x="{230 + width:.1f}" y="{y + 14}">${row["usd a seed"]:.0f}{missed}</text>')
    return "\n".join([*lines, "</svg>"])


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description="workflows with deadlines on spot")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--quick", action="store_true", help="one seed, workflows of at most 110 tasks")
    parser.add_argument("--seeds", default="3,4,5")
    parser.add_argument("--workflows", default="")
    parser.add_argument("--policies", default="")
    parser.add_argument("--ratio", type=float, default=1.5)
    parser.add_argument("--noisy", action="store_true")
    parser.add_argument("--unscaled", action="store_true")
    parser.add_argument("--gpu", action="store_true", help="with an injected GPU stage")
    parser.add_argument("--most-tasks", type=int, default=400)
    parser.add_argument("--search", type=int, default=8, help="simulations spent on each schedule in hindsight")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--chart", type=Path)
    said = parser.parse_args()
    names = sorted(path.name.removesuffix(".json.gz") for path in (said.data / "workflows").glob("*.json.gz"))
    if not names:
        raise SystemExit(f"there are no workflows in {said.data}; see the module's docstring for where they come from")
    names = [name for name in names if not said.workflows or any(part in name for part in said.workflows.split(","))]
    seeds = [int(seed) for seed in said.seeds.split(",")][: 1 if said.quick else None]
    policies: dict[str, Callable[[], Planner]] = {"orc": lambda: plan, **WORKFLOW_PEERS}
    policies = {
        name: made for name, made in policies.items() if not said.policies or name in ["orc", *said.policies.split(",")]
    }
    rows: list[dict[str, Any]] = []
    for name in names:
        if len(read(said.data / f"workflows/{name}.json.gz").tasks) > (110 if said.quick else said.most_tasks):
            continue
        for seed in seeds:
            one = cell(said.data, name, seed, said.ratio, said.unscaled, said.gpu)
            made = measured(one, policies, SimulationSetting(exact=not said.noisy), 3 if said.quick else said.search)
            rows += made
            short = {row["policy"]: f"{row['usd']:.2f}{'!' * row['missed']}" for row in made}
            print(name, "seed", seed, f"factor {one.factor:.1f} bound {made[0]['bound_usd']:.2f}", short, flush=True)
            if said.json is not None:
                said.json.write_text(
                    json.dumps({"arguments": {k: str(v) for k, v in vars(said).items()}, "rows": rows}, indent=1)
                )
    for title, chosen in (
        ("all workflows", rows),
        (
            "workflows and windows that were not tuned on",
            [r for r in rows if r["seed"] > 2 and not r["workflow"].startswith(TUNED)],
        ),
    ):
        if chosen:
            table.show(
                f"{title}, ratio {said.ratio}, {'noisy' if said.noisy else 'exact'} runtimes", summary(chosen), None
            )
            print(verdict(chosen))
    if said.chart is not None:
        said.chart.write_text(chart(rows))


if __name__ == "__main__":
    main()
