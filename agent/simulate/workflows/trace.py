"""Spot traces: how many workers a zone would give, and at what price, in equal steps of time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.errors import TraceError
from agent.model.units import MICROS, MS_PER_HOUR
from agent.pools import spot_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityTrace:
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
                f"trace {self.name} has {len(self.capacity)} steps of capacity and "
                f"{len(self.usd_micros_per_hour)} prices; as many are needed, and one at least"
            )
        if min(self.capacity) < 0:
            raise TraceError(f"trace {self.name} has a negative capacity")

    @property
    def length_ms(self) -> int:
        """How long it lasts."""
        return self.step_ms * len(self.capacity)

    def part(self, start_ms: int, length_ms: int) -> CapacityTrace:
        """A window of it, beginning with the step that holds `start_ms`. Raises TraceError when it is too short."""
        first, steps = start_ms // self.step_ms, math.ceil(length_ms / self.step_ms)
        if start_ms < 0 or first + steps > len(self.capacity):
            raise TraceError(
                f"trace {self.name} lasts {self.length_ms / MS_PER_HOUR:.1f} h; "
                f"{(start_ms + length_ms) / MS_PER_HOUR:.1f} h are needed"
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
        """Instants at which capacity or price change: (ms, capacity, price), the first at 0,
        the last the trace's end.
        """
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


def read(path: Path, workers: int = 1) -> CapacityTrace:
    """A zone's file: where there is capacity, it is taken as `workers` workers. Raises TraceError."""
    zone = spot_trace.read(path)
    dear = zone.on_demand_usd_per_hour
    return CapacityTrace(
        name=zone.zone,
        step_ms=round(zone.gap_seconds * 1000),
        capacity=tuple(workers * up for up in zone.available),
        usd_micros_per_hour=tuple(round(usd * MICROS) for usd in zone.spot_usd_per_hour),
        on_demand_usd_micros_per_hour=None if dear is None else round(dear * MICROS),
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
