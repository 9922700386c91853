"""The least expected cost of finishing one job by its deadline over zones whose spot capacity comes and goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
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
    #: [Z] losses per hour up
    loss_per_h: Floats
    #: [Z] returns per hour down
    return_per_h: Floats
    #: USD per hour of lateness
    late_usd_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Expected cost to go, by steps left, steps of slack, mode and joint state of the zones.

    A mode is to wait with the checkpoint in zone z (z), to run on spot there (Z + z), to run on demand there (2Z + z),
    or to wait without a checkpoint (3Z). A joint state is a number whose bit z says that zone z has capacity now.
    """

    market: Market
    #: [steps left + 1, modes, slack + 1, 2^Z] when the mode goes on for a step
    step: Floats
    #: [steps left + 1, modes from Z to 3Z, slack + 1, 2^Z] when it goes on for a start-up
    launch: Floats

    def usd(self, after: Literal["step", "launch"], mode: int, left: float, slack: float) -> Floats:
        """[2^Z] expected cost to go by joint state now, with so many steps left and of slack, bilinear in both.

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
        mixed: Floats = (
            part[t, mode, b] * ((1 - right) * (1 - down))
            + part[t + 1, mode, b + 1] * (right * (1 - down))
            + part[t + 1, mode, b] * ((1 - right) * down)
            + part[t + 2, mode, b + 1] * (right * down)
        )
        return mixed + late_usd


def kernels(loss_per_h: Floats, return_per_h: Floats, hours: float) -> Floats:
    """[Z, from, to] over (down, up): transition probabilities of two-state Markov chains after some hours."""
    total = loss_per_h + return_per_h
    up, stay = return_per_h / total, np.exp(-total * hours)
    out = np.empty((len(total), 2, 2))
    out[:, 0, 1] = up * (1 - stay)
    out[:, 1, 1] = up + (1 - up) * stay
    out[:, :, 0] = 1 - out[:, :, 1]
    return out


def joint(up: Sequence[float]) -> Floats:
    """[2^Z]: the distribution over joint states of independent zones that are up with these probabilities."""
    out = [1.0]
    for p in up:
        out = [q * (1 - p) for q in out] + [q * p for q in out]
    return np.array(out)


def solve(market: Market, time: int, slack: int) -> Table:
    """Backward induction over the steps left.

    Args:
        time: steps left, at most.
        slack: of them not needed for work, at most.

    With t steps left and b of slack the work left is t - b steps. The state is taken as known in every step: who waits
    asks every zone it would take, and a refusal costs nothing. When a start-up on demand would end too late, the
    lateness costs `late_usd_h` an hour, so that the values stay finite and smooth at the edge.
    """
    zones, n, h = len(market.spot_usd_h), market.startup, market.step_h
    states, modes = 1 << zones, 3 * zones + 1
    once, over = (_joint_kernel(kernels(market.loss_per_h, market.return_per_h, h * k)) for k in (1, n))
    up = (np.arange(states) >> np.arange(zones)[:, None]) & 1 > 0
    closed = np.where(up, 0.0, np.inf)[:, None, :]
    spot, dear = market.spot_usd_h[:, None, None] * h, market.on_demand_usd_h[:, None, None] * h
    b = np.arange(slack + 1)
    late = min(n, slack + 1)
    missing = market.late_usd_h * h * (n - b[:late])[None, :, None]
    step = np.zeros((time + 1, modes, slack + 1, states))
    launch = np.zeros((time + 1, 2 * zones, slack + 1, states))
    value = np.empty((modes, slack + 1, states))
    starts = np.empty((zones, slack + 1, states))
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
        np.dot(value.reshape(-1, states), once, out=step[t].reshape(-1, states))
        np.dot(value[zones : 3 * zones].reshape(-1, states), over, out=launch[t].reshape(-1, states))
    return Table(market=market, step=step, launch=launch)


def _joint_kernel(parts: Floats) -> Floats:
    """[to, from] over joint states, to be multiplied from the right."""
    out = np.ones((1, 1))
    for part in parts:
        out = np.kron(part, out)
    return np.ascontiguousarray(out.T)
