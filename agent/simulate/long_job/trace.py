"""Spot traces: per zone, whether an instance could be had and what it cost, one sample a tick."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.errors import TraceError
from agent.model.pools import region_of
from agent.pools import spot_trace
from agent.pools.spot_trace import SpotTrace
from agent.simulate.long_job.protocol import SimulatedJob, Zone

#: USD per GB between two regions that no table names: the usual rate inside a continent and across the Atlantic
EGRESS_USD_PER_GB = 0.02

Egress = Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneTrace:
    """One zone over time."""

    #: us-east-1c
    zone: str
    #: us-east-1
    region: str
    #: seconds between samples
    tick_s: float
    #: [ticks] whether a spot instance is granted, and kept, at that tick
    available: NDArray[np.bool_]
    #: [ticks] USD per hour
    spot_usd_h: NDArray[np.float64]
    #: USD per hour, always granted
    on_demand_usd_h: float


def read(path: Path) -> ZoneTrace:
    """A zone's file, with its price on demand. Raises TraceError naming the file and the sample."""
    return of_zone(spot_trace.read(path), str(path))


def of_zone(zone: SpotTrace, where: str) -> ZoneTrace:
    """A trace as arrays; `where` names it in messages. Raises TraceError when no price on demand is known."""
    if zone.on_demand_usd_per_hour is None:
        raise TraceError(f"{where}: on_demand_usd_per_hour is wanted")
    return ZoneTrace(
        zone=zone.zone, region=region_of(zone.zone), tick_s=zone.gap_seconds, available=np.array(zone.available, bool),
        spot_usd_h=np.array(zone.spot_usd_per_hour), on_demand_usd_h=zone.on_demand_usd_per_hour,
    )  # fmt: skip


def read_folder(folder: Path) -> dict[str, ZoneTrace]:
    """Every `*.json` and `*.json.gz` of a folder by zone name. Raises TraceError when there is none or a zone twice."""
    out: dict[str, ZoneTrace] = {}
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")]):
        trace = read(path)
        if trace.zone in out:
            raise TraceError(f"{path}: zone {trace.zone} is in {folder} twice")
        out[trace.zone] = trace
    if not out:
        raise TraceError(f"{folder}: no trace (*.json, *.json.gz) there")
    return out


def read_egress(path: Path) -> dict[tuple[str, str], float]:
    """USD per GB by (from, to) region from a CSV with from_region, to_region and price_usd_per_gb.

    Raises TraceError.
    """
    out = {}
    with path.open(newline="") as lines:
        for n, row in enumerate(csv.DictReader(lines), start=2):
            try:
                usd = float(row["price_usd_per_gb"])
                if not (math.isfinite(usd) and usd >= 0):
                    raise ValueError(usd)
                out[row["from_region"], row["to_region"]] = usd
            except (KeyError, ValueError, TypeError) as error:
                raise TraceError(
                    f"{path}:{n}: {error!r}: from_region, to_region, price_usd_per_gb are wanted"
                ) from error
    return out


def job_of(
    traces: Sequence[ZoneTrace],
    *,
    work_s: float,
    deadline_s: float,
    startup_s: float = 720.0,
    checkpoint_gb: float = 50.0,
    probe_s: float = 60.0,
    egress: Egress | None = None,
) -> SimulatedJob:
    """A job over the zones of some traces; between regions a checkpoint pays `egress` per GB, else the usual rate.

    Raises TraceError when the traces are none or of unequal steps, or a duration is not a finite time above zero.
    """
    if not traces:
        raise TraceError("no zone: at least one trace is wanted")
    if len({t.tick_s for t in traces}) > 1:
        raise TraceError(
            f"unequal steps: {', '.join(f'{t.zone} {t.tick_s:g} s' for t in traces)}; resample to one step"
        )
    for name, value in {"work": work_s, "deadline": deadline_s}.items():
        if not (math.isfinite(value) and value > 0):
            raise TraceError(f"the job's {name} is {value} s; a finite time above zero is wanted")
    if not (math.isfinite(startup_s) and startup_s >= 0):
        raise TraceError(f"the job's start-up is {startup_s} s; a finite time is wanted")
    known = egress or {}
    usd = tuple(
        tuple(
            0.0 if a.region == b.region else checkpoint_gb * known.get((a.region, b.region), EGRESS_USD_PER_GB)
            for b in traces
        )
        for a in traces
    )
    return SimulatedJob(
        work_s=work_s,
        deadline_s=deadline_s,
        startup_s=startup_s,
        tick_s=traces[0].tick_s,
        checkpoint_gb=checkpoint_gb,
        probe_s=probe_s,
        zones=tuple(Zone(name=t.zone, region=t.region) for t in traces),
        egress_usd=usd,
    )


def horizon(traces: Sequence[ZoneTrace], job: SimulatedJob, start: int) -> int:
    """Ticks from `start` in which the job may run: those that begin before its deadline.

    Raises TraceError if too short.
    """
    ticks = math.ceil(job.deadline_s / job.tick_s - 1e-9)
    for trace in traces:
        if start < 0 or start + ticks > trace.available.size:
            raise TraceError(
                f"{trace.zone}: {trace.available.size} samples of {trace.tick_s:g} s; from sample {start} "
                f"a deadline of {job.deadline_s / 3600:.2f} h needs {ticks}"
            )
    return ticks
