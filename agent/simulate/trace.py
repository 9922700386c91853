"""Spot traces: how many workers a zone would give, and at what price, in equal steps of time."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.errors import TraceError
from agent.model.units import MICROS, MS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A zone over time, from 0 on."""

    name: str
    step_ms: int
    #: workers the zone has for us in each step, ≥ 0
    capacity: tuple[int, ...]
    #: price of one worker in each step
    usd_micros_per_hour: tuple[int, ...]
    #: what the same worker costs on demand there; None: not known
    on_demand_usd_micros_per_hour: int | None = None

    def __post_init__(self) -> None:
        if self.step_ms <= 0:
            raise TraceError(f"trace {self.name}: a step of {self.step_ms} ms")
        if not self.capacity or len(self.capacity) != len(self.usd_micros_per_hour):
            raise TraceError(
                f"trace {self.name} has {len(self.capacity)} steps of capacity and {len(self.usd_micros_per_hour)} prices; as many are needed, and one at least"
            )
        if min(self.capacity) < 0:
            raise TraceError(f"trace {self.name} has a negative capacity")

    @property
    def length_ms(self) -> int:
        """How long it lasts."""
        return self.step_ms * len(self.capacity)

    def part(self, start_ms: int, length_ms: int) -> Trace:
        """A window of it, beginning with the step that holds `start_ms`. Raises TraceError when it is too short."""
        first, steps = start_ms // self.step_ms, math.ceil(length_ms / self.step_ms)
        if start_ms < 0 or first + steps > len(self.capacity):
            raise TraceError(
                f"trace {self.name} lasts {self.length_ms / MS_PER_HOUR:.1f} h; {(start_ms + length_ms) / MS_PER_HOUR:.1f} h are needed"
            )
        return replace(
            self,
            capacity=self.capacity[first : first + steps],
            usd_micros_per_hour=self.usd_micros_per_hour[first : first + steps],
        )

    def at(self, ms: int) -> int:
        """Workers it gives at an instant; none before it begins and after it ends."""
        step = ms // self.step_ms
        return self.capacity[step] if 0 <= step < len(self.capacity) else 0

    def price_at(self, ms: int) -> int:
        """Micro-dollars an hour of one worker; the nearest step's outside of it."""
        return self.usd_micros_per_hour[min(max(0, ms // self.step_ms), len(self.capacity) - 1)]

    def changes(self) -> list[tuple[int, int, int]]:
        """Instants at which capacity or price change: (ms, capacity, price), the first at 0, the last the trace's end."""
        out = [
            (step * self.step_ms, self.capacity[step], self.usd_micros_per_hour[step])
            for step in range(len(self.capacity))
            if not step
            or self.capacity[step] != self.capacity[step - 1]
            or self.usd_micros_per_hour[step] != self.usd_micros_per_hour[step - 1]
        ]
        return [*out, (self.length_ms, 0, self.usd_micros_per_hour[-1])]

    def cost(self, start_ms: int, stop_ms: int) -> int:
        """Micro-dollars of one worker over a span."""
        total, at = 0, start_ms
        while at < stop_ms:
            step = at // self.step_ms
            edge = (step + 1) * self.step_ms if step < len(self.capacity) else stop_ms
            until = min(stop_ms, edge)
            total += self.price_at(at) * (until - at)
            at = until
        return round(total / MS_PER_HOUR)


def read(path: Path, workers: int = 1) -> Trace:
    """A zone file: `gap_seconds`, `available` (1: there is capacity, taken as `workers` workers), `spot_usd_per_hour`.

    Raises TraceError: unreadable, of unequal length or steps, a price that is no number.
    """
    try:
        raw = path.read_bytes()
        said = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        name, gap, available, prices = said["zone"], said["gap_seconds"], said["available"], said["spot_usd_per_hour"]
        on_demand = said.get("on_demand_usd_per_hour")
        times = [float(at) for at in said.get("timestamps") or ()]
    except OSError as error:
        raise TraceError(f"trace {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise TraceError(f"trace {path} is not JSON: {error}") from error
    except KeyError as error:
        raise TraceError(f"trace {path} has no {error.args[0]}") from error
    if isinstance(gap, bool) or not isinstance(gap, int | float) or not math.isfinite(gap):
        raise TraceError(f"trace {path}: gap_seconds is {gap!r}; a number of seconds is meant")
    unequal = [b - a for a, b in itertools.pairwise(times) if abs(b - a - gap) > 0.5]
    if unequal or (times and len(times) != len(available)):
        raise TraceError(
            f"trace {path} has unequal steps: {unequal[0] if unequal else len(times)} among {len(available)} of {gap} s"
        )
    return Trace(
        name=str(name),
        step_ms=round(gap * 1000),
        capacity=tuple(_count(path, x) * workers for x in available),
        usd_micros_per_hour=tuple(_micros(path, x) for x in prices),
        on_demand_usd_micros_per_hour=None if on_demand is None else _micros(path, on_demand),
    )


def read_counts(path: Path, zone: str, usd_micros_per_hour: int, on_demand_usd_micros_per_hour: int) -> Trace:
    """One zone of a file of counts: `scheduled_at` and a column a zone. Raises TraceError, also when steps are unequal.

    A sample that is missing or failed is no count: the one before it holds on, as it would for whoever asked then.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise TraceError(f"trace {path} cannot be read: {error.strerror or error}") from error
    if not rows or zone not in rows[0]:
        raise TraceError(f"trace {path} has no zone {zone}")
    times = [datetime.fromisoformat(row["scheduled_at"]).timestamp() for row in rows]
    step = step_of(path.name, times)
    counts: list[int] = []
    at = 0
    for n in range(round((times[-1] - times[0]) / step) + 1):
        while at + 1 < len(times) and times[at + 1] <= times[0] + n * step + step / 2:
            at += 1
        said = rows[at][zone]
        counts.append(int(said) if said else counts[-1] if counts else 0)
    return Trace(
        name=zone,
        step_ms=round(step * 1000),
        capacity=tuple(counts),
        usd_micros_per_hour=(usd_micros_per_hour,) * len(counts),
        on_demand_usd_micros_per_hour=on_demand_usd_micros_per_hour,
    )


def step_of(name: str, seconds: Sequence[float]) -> float:
    """The common step of sample times; whole steps may be missing. Raises TraceError when they are unequal."""
    if len(seconds) < 2:
        raise TraceError(f"trace {name} has {len(seconds)} samples; two are needed to know its step")
    gaps = sorted(b - a for a, b in itertools.pairwise(seconds))
    step = float(round(gaps[len(gaps) // 2]))
    for before, after in itertools.pairwise(seconds):
        steps = (after - before) / step if step > 0 else 0.0
        if round(steps) < 1 or abs(steps - round(steps)) > 0.1:
            raise TraceError(f"trace {name} has unequal steps: {after - before:.0f} s among steps of {step:.0f} s")
    return step


def _count(path: Path, value: Any) -> int:
    if value not in (0, 1):
        raise TraceError(f"trace {path}: available is {value!r}; 0 or 1 is meant")
    return int(value)


def _micros(path: Path, usd: Any) -> int:
    if isinstance(usd, bool) or not isinstance(usd, int | float) or not math.isfinite(usd) or usd < 0:
        raise TraceError(f"trace {path}: price {usd!r} must be a finite number, not negative")
    return round(usd * MICROS)
