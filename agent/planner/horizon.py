"""The least expected cost of finishing one job by its deadline over zones whose spot capacity comes and goes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """What the zones charge and how their spot capacity changes, in steps of `step_h`."""

    #: hours of a step
    step_h: float
    #: steps of a start-up
    startup: int
    #: [zones] USD per hour
    spot_usd_h: Floats
    #: [zones] USD per hour
    on_demand_usd_h: Floats
    #: [zones, zones] USD to move the checkpoint
    egress_usd: Floats
    #: [zones] losses per hour up
    loss_per_h: Floats
    #: [zones] returns per hour down
    return_per_h: Floats
    #: USD per hour of lateness
    late_usd_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Expected cost to go, by time left, slack, mode and joint state of the zones.

    Modes of Z zones: waiting with the checkpoint in zone z (z), waiting without one (Z), on spot in z (Z + 1 + z), on
    demand in z (2Z + 1 + z). A joint state is a number whose bit z says that zone z has capacity.
    """

    market: Market
    #: [time left + 1, slack + 1, modes, states] after one step of the zones
    step: Floats
    #: [time left + 1, slack + 1, modes from Z + 1 on, states] after the steps of a start-up
    launch: Floats


def kernels(loss_per_h: Floats, return_per_h: Floats, hours: float) -> Floats:
    """[zones, from, to] over (down, up) after some hours of two-state Markov chains."""
    total = loss_per_h + return_per_h
    up = return_per_h / total
    stay = np.exp(-total * hours)
    out = np.empty((len(total), 2, 2))
    out[:, 0, 1] = up * (1 - stay)
    out[:, 1, 1] = up + (1 - up) * stay
    out[:, :, 0] = 1 - out[:, :, 1]
    return out


def joint(parts: Floats) -> Floats:
    """The distribution over joint states ([2^Z]), or their kernel ([2^Z, 2^Z]), of independent zones."""
    out = parts[0]
    for part in parts[1:]:
        out = np.kron(part, out)
    return out


def solve(market: Market, time: int, slack: int) -> Table:
    """Backward induction over the time left.

    Args:
        time: steps left, at most.
        slack: of them not needed for work, at most.

    With time t and slack b the work left is t - b steps. In every step the states of the zones are known: a policy
    that waits asks all it would take, and refusals cost nothing. Too late for a start-up on demand costs
    `late_usd_h` an hour late.
    """
    zones, n, h = len(market.spot_usd_h), market.startup, market.step_h
    states = 1 << zones
    up = (np.arange(states)[None, :] >> np.arange(zones)[:, None]) & 1 == 1
    once = joint(kernels(market.loss_per_h, market.return_per_h, h)).T.copy()
    over = joint(kernels(market.loss_per_h, market.return_per_h, h * n)).T.copy()
    b = np.arange(slack + 1)
    modes = 3 * zones + 1
    spot, od = slice(zones + 1, 2 * zones + 1), slice(2 * zones + 1, modes)
    move = np.vstack([market.egress_usd, np.zeros(zones)])
    step = np.zeros((time + 1, slack + 1, modes, states))
    launch = np.zeros((time + 1, slack + 1, 2 * zones, states))
    price, dear = market.spot_usd_h[:, None] * h, market.on_demand_usd_h[:, None] * h
    blocked = np.where(up, 0.0, np.inf)
    value = np.empty((slack + 1, modes, states))
    for t in range(1, time + 1):
        starts = np.full((slack + 1, zones, states), np.inf)
        if t >= n and slack >= n:
            went = launch[t - n, : slack + 1 - n]
            starts[n:] = np.minimum(went[:, :zones] + price * n + blocked, went[:, zones:] + dear * n)
        late = min(n, slack + 1)
        if late:
            missing = (n - b[:late])[:, None, None]
            starts[:late] = dear * (n + np.maximum(t - b[:late], 0))[:, None, None] + market.late_usd_h * h * missing
        value[0, : zones + 1] = np.inf
        value[1:, : zones + 1] = step[t - 1, :-1, : zones + 1]
        for z in range(zones):
            np.minimum(value[:, : zones + 1], starts[:, z, None] + move[:, z, None], out=value[:, : zones + 1])
        leave = value[:, :zones]
        value[:, spot] = np.minimum(step[t - 1][:, spot] + price + blocked, leave)
        value[:, od] = np.minimum(step[t - 1][:, od] + dear, leave)
        value[t:] = 0.0
        step[t] = value @ once
        launch[t] = value[:, zones + 1 :] @ over
    return Table(market=market, step=step, launch=launch)
