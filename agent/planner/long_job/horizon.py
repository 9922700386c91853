"""The least expected cost of finishing a long job by its deadline over zones whose spot capacity comes and goes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneMarket:
    """What Z zones charge, and how their spot capacity comes and goes."""

    #: hours of a step
    step_h: float
    #: steps of a start-up
    startup: int
    #: [Z] USD per hour
    spot_usd_h: Floats
    #: [Z] USD per hour
    on_demand_usd_h: Floats
    #: [Z, Z] USD to move the checkpoint
    egress_usd: Floats
    #: [R, Z] losses per hour up, by regime of the whole market
    loss_per_h: Floats
    #: [R, Z] returns per hour down
    return_per_h: Floats
    #: [R, R] changes of the regime per hour, from, to; the diagonal is not read
    change_per_h: Floats
    #: USD per hour of lateness
    late_usd_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """Expected cost to go, by steps left, steps of slack, mode, regime of the market and joint state of the zones.

    A mode is to wait with the checkpoint in zone z (z), to run on spot there (Z + z), to run on demand there (2Z + z),
    or to wait without a checkpoint (3Z). A state is a number whose bit z says that zone z has capacity now; above the Z
    bits it says the regime. Values are of single precision: cents of thousands of dollars.
    """

    market: ZoneMarket
    #: [steps left + 1, modes, slack + 1, R·2^Z] when the mode goes on for a step
    step: Singles
    #: [steps left + 1, modes from Z to 3Z, slack + 1, R·2^Z] when it goes on for a start-up
    launch: Singles

    def usd(self, after: Literal["step", "launch"], mode: int, left: float, slack: float) -> Floats:
        """[R·2^Z] expected cost to go by state now, with so many steps left and of slack, bilinear in both.

        Args:
            after: which of the two arrays.
            mode: index into its modes.
        """
        part, work, late_usd = self.step if after == "step" else self.launch, left - slack, 0.0
        if work <= 0:
            return np.zeros(part.shape[-1])
        if slack < 0:
            late_usd, slack = -slack * self.market.late_usd_h * self.market.step_h, 0.0
        most, b = part.shape[0] - 1, min(int(slack), part.shape[2] - 2)
        w = max(0, min(int(work), most - 2 - b))
        down, right, t = min(work - w, 1.0), min(slack - b, 1.0), w + b
        mixed: Singles = (
            part[t, mode, b] * ((1 - right) * (1 - down))
            + part[t + 1, mode, b + 1] * (right * (1 - down))
            + part[t + 1, mode, b] * ((1 - right) * down)
            + part[t + 2, mode, b + 1] * (right * down)
        )
        return mixed.astype(float) + late_usd


def kernels(loss_per_h: Floats, return_per_h: Floats, hours: float) -> Floats:
    """[Z, from, to] over (down, up): transition probabilities of two-state Markov chains after some hours."""
    total = loss_per_h + return_per_h
    up, stay = return_per_h / total, np.exp(-total * hours)
    out = np.empty((len(total), 2, 2))
    out[:, 0, 1] = up * (1 - stay)
    out[:, 1, 1] = up + (1 - up) * stay
    out[:, :, 0] = 1 - out[:, :, 1]
    return out


def changes(per_h: Floats, hours: float) -> Floats:
    """[from, to]: transition probabilities of the regime after some hours.

    `per_h`: [R, R] rates, the diagonal not read.
    """
    return _changes(tuple(map(tuple, per_h.tolist())), hours)


@lru_cache(maxsize=64)
def _changes(per_h: tuple[tuple[float, ...], ...], hours: float) -> Floats:
    """The exponential of the generator times the hours, by a Taylor series of a small part of it, squared again."""
    rates = np.array(per_h, float)
    rates -= np.diag(np.diag(rates))
    generator = (rates - np.diag(rates.sum(1))) * hours
    halvings = max(0, math.ceil(math.log2(max(float(np.abs(generator).sum(1).max()), 1e-300))) + 4)
    small = generator / 2.0**halvings
    term = out = np.eye(len(rates))
    for k in range(1, 13):
        term = term @ small / k
        out = out + term
    for _ in range(halvings):
        out = out @ out
    out.setflags(write=False)
    return out


def joint(up: Sequence[float]) -> Floats:
    """[2^Z]: the distribution over joint states of independent zones that are up with these probabilities."""
    out = [1.0]
    for p in up:
        out = [q * (1 - p) for q in out] + [q * p for q in out]
    return np.array(out)


def solve(market: ZoneMarket, time: int, slack: int) -> CostTable:
    """Backward induction over the steps left.

    Args:
        time: steps left, at most.
        slack: of them not needed for work, at most.

    With t steps left and b of slack the work left is t - b steps. The state is taken as known in every step: who waits
    asks every zone it would take, and a refusal costs nothing. When a start-up on demand would end too late, the
    lateness costs `late_usd_h` an hour, so that the values stay finite and smooth at the edge.
    """
    zones, n, h = len(market.spot_usd_h), market.startup, market.step_h
    states, modes = len(market.loss_per_h) << zones, 3 * zones + 1
    once, over = (_Chain(market, h * k) for k in (1, n))
    up = (np.arange(states) >> np.arange(zones)[:, None]) & 1 > 0
    closed = np.where(up, 0.0, np.inf).astype(np.float32)[:, None, :]
    spot, dear = ((usd[:, None, None] * h).astype(np.float32) for usd in (market.spot_usd_h, market.on_demand_usd_h))
    b = np.arange(slack + 1)
    late = min(n, slack + 1)
    missing = market.late_usd_h * h * (n - b[:late])[None, :, None]
    step = np.zeros((time + 1, modes, slack + 1, states), np.float32)
    launch = np.zeros((time + 1, 2 * zones, slack + 1, states), np.float32)
    value = np.empty((modes, slack + 1, states), np.float32)
    starts = np.empty((zones, slack + 1, states), np.float32)
    wait, on_spot, on_demand = value[:zones], value[zones : 2 * zones], value[2 * zones : 3 * zones]
    for t in range(1, time + 1):
        before = step[t - 1]
        starts[:, :late] = dear * (n + np.maximum(t - b[:late], 0))[None, :, None] + missing
        if n == 0:
            np.minimum(before[zones : 2 * zones] + spot + closed, before[2 * zones : 3 * zones] + dear, out=starts)
        elif t >= n and slack >= n:
            went = launch[t - n, :, : slack + 1 - n]
            np.minimum(went[:zones] + spot * n + closed, went[zones:] + dear * n, out=starts[:, n:])
        else:
            starts[:, late:] = np.inf
        for z in range(zones):
            np.min(starts + market.egress_usd[z][:, None, None], axis=0, out=wait[z])
        np.min(starts, axis=0, out=value[-1])
        np.minimum(wait[:, 1:], before[:zones, :-1], out=wait[:, 1:])
        np.minimum(value[-1, 1:], before[-1, :-1], out=value[-1, 1:])
        np.minimum(before[zones : 2 * zones] + spot + closed, wait, out=on_spot)
        np.minimum(before[2 * zones : 3 * zones] + dear, wait, out=on_demand)
        value[:, t:] = 0.0
        once.expect(value, step[t])
        over.expect(value[zones : 3 * zones], launch[t])
    return CostTable(market=market, step=step, launch=launch)


class _Chain:
    """What becomes of regime and zones in some hours: the regime changes at their end, given it the zones are
    independent.
    """

    def __init__(self, market: ZoneMarket, hours: float) -> None:
        self.change: Singles = changes(market.change_per_h, hours).astype(np.float32)
        #: [R][to, from] over joint states, to be multiplied from the right
        self.kernels: list[Singles] = []
        for loss, back in zip(market.loss_per_h, market.return_per_h, strict=True):
            out = np.ones((1, 1))
            for part in kernels(loss, back, hours):
                out = np.kron(part, out)
            self.kernels.append(np.ascontiguousarray(out.T, np.float32))

    def expect(self, value: Singles, into: Singles) -> None:
        """[..., R·2^Z] the expected value by state before.

        A multiplication a regime: one over all states would cost R times as much.
        """
        regimes, states = len(self.kernels), len(self.kernels[0])
        after, before = value.reshape(-1, regimes, states), into.reshape(-1, regimes, states)
        for r, kernel in enumerate(self.kernels):
            mixed = after[:, 0] * self.change[r, 0]
            for k in range(1, regimes):
                mixed += after[:, k] * self.change[r, k]
            before[:, r] = mixed @ kernel
