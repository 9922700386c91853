"""The least expected cost of finishing one job by its deadline over zones whose spot capacity comes and goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: phases of a zone: down for a short time, down for long, up for a short time, up for long
PHASES = 4
UP = np.array([False, False, True, True])
#: kinds of a mode: waiting with the checkpoint in a zone, on spot there, on demand there
WAIT, ON_SPOT, ON_OD = 0, 1, 2


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
    #: [zones, phases, phases] rates per hour
    rates: Floats
    #: [zones, 2] losses per hour up and returns per hour down, for a zone that is seen only now and then
    seldom: Floats
    #: [zones, phases] of a zone found up, or found down
    found: Floats
    #: USD per hour of lateness
    late_usd_h: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Expected cost to go, by time left, slack, mode and state.

    In a mode of zone z the state is (phase of z, which of the other zones are up): phase · 2^(Z-1) + one bit for each
    other zone in order. Without a checkpoint anywhere it is one bit for each zone.
    """

    market: Market
    #: [time left + 1, zones, kinds, slack + 1, states] after one step
    step: Floats
    #: [time left + 1, zones, 2, slack + 1, states] after the steps of a start-up, on spot and on demand
    launch: Floats
    #: [time left + 1, slack + 1, 2^zones] waiting without a checkpoint, after one step; None when there is one
    fresh: Floats | None


def expm(rates: Floats, hours: float) -> Floats:
    """[..., n, n] transition probabilities after some hours of Markov chains with these generators (scaling and squaring)."""
    small = rates * (hours / 1024)
    out = np.eye(rates.shape[-1]) + small + small @ small / 2
    for _ in range(10):
        out = out @ out
    return out


def joint(up: Sequence[float]) -> list[float]:
    """[2^Z]: the distribution over joint states of independent zones that are up with these probabilities."""
    out = [1.0]
    for p in up:
        out = [q * (1 - p) for q in out] + [q * p for q in out]
    return out


def _others(parts: Floats, z: int) -> Floats:
    """The kernel over the joint states of all zones but z."""
    out = np.ones((1, 1))
    for k, part in enumerate(parts):
        if k != z:
            out = np.kron(part, out)
    return out


def _two(seldom: Floats, hours: float) -> Floats:
    """[zones, from, to] over (down, up)."""
    rates = np.zeros((len(seldom), 2, 2))
    rates[:, 0, 1], rates[:, 1, 0] = seldom[:, 1], seldom[:, 0]
    rates[:, 0, 0], rates[:, 1, 1] = -seldom[:, 1], -seldom[:, 0]
    return expm(rates, hours)


def solve(market: Market, time: int, slack: int, fresh: bool) -> Table:
    """Backward induction over the time left.

    Args:
        time: steps left, at most.
        slack: of them not needed for work, at most.
        fresh: there is no checkpoint yet.

    With time t and slack b the work left is t - b steps. In every step the states are known: a policy that waits asks
    all it would take, and refusals cost nothing. Too late for a start-up on demand costs `late_usd_h` an hour late.
    """
    zones, n, h = len(market.spot_usd_h), market.startup, market.step_h
    rest = 1 << (zones - 1)
    states = PHASES * rest
    own, two = expm(market.rates, h), _two(market.seldom, h)
    # during a start-up a loss is final
    lasting = market.rates.copy()
    lasting[:, ~UP] = 0.0
    own_n, own_lost, two_n = expm(market.rates, h * n), expm(lasting, h * n), _two(market.seldom, h * n)
    turned = lambda a, b: np.stack([np.kron(a[z], _others(b, z)).T for z in range(zones)])
    once, over_spot, over_od = turned(own, two), turned(own_lost, two_n), turned(own_n, two_n)
    once_fresh = np.ones((1, 1))
    for part in two:
        once_fresh = np.kron(part, once_fresh)
    once_fresh = once_fresh.T.copy()

    # a joint state of all zones as seen from zone z, and back
    bits = np.arange(2 * rest)
    seen_from = np.empty((zones, states), int)
    collapsed = np.empty((zones, 2 * rest), int)
    for z in range(zones):
        low, high = bits[:rest] & ((1 << z) - 1), bits[:rest] >> z
        for phase in range(PHASES):
            seen_from[z, phase * rest : (phase + 1) * rest] = low | (int(UP[phase]) << z) | (high << (z + 1))
        collapsed[z] = ((bits >> z) & 1) * rest + ((bits & ((1 << z) - 1)) | (bits >> (z + 1) << z))

    b = np.arange(slack + 1)
    step = np.zeros((time + 1, zones, 3, slack + 1, states))
    launch = np.zeros((time + 1, zones, 2, slack + 1, states))
    open_ = np.zeros((time + 1, slack + 1, 2 * rest)) if fresh else None
    spot, dear = market.spot_usd_h[:, None, None] * h, market.on_demand_usd_h[:, None, None] * h
    blocked = np.where(np.repeat(UP, rest), 0.0, np.inf)
    value = np.empty((zones, 3, slack + 1, states))
    starts = np.empty((zones, slack + 1, states))
    moves = np.empty((zones, slack + 1, 2 * rest))
    found = market.found[:, None, :, None]
    away = market.egress_usd + np.where(np.eye(zones) > 0, np.inf, 0.0)
    late = min(n, slack + 1)
    for t in range(1, time + 1):
        moves[:], starts[:] = np.inf, np.inf
        if late:
            missing = market.late_usd_h * h * (n - b[:late])[None, :, None]
            starts[:, :late] = dear * (n + np.maximum(t - b[:late], 0))[None, :, None] + missing
            moves[:, :late] = starts[:, :late, : 1]
        if t >= n and slack >= n:
            went = launch[t - n, :, :, : slack + 1 - n]
            go_spot, go_od = went[:, 0] + spot * n, went[:, 1] + dear * n
            np.minimum(go_spot + blocked, go_od, out=starts[:, n:])
            there = go_spot.reshape(zones, -1, PHASES, rest)
            there_od = go_od.reshape(zones, -1, PHASES, rest)
            two_od = (there_od * found).reshape(zones, -1, 2, 2, rest).sum(3)
            two_spot = (there[:, :, 2:] * found[:, :, 2:]).sum(2)
            np.minimum(two_od[:, :, 1], two_spot, out=two_od[:, :, 1])
            flat = two_od.reshape(zones, -1, 2 * rest)
            for z in range(zones):
                np.take(flat[z], collapsed[z], axis=1, out=moves[z, n:])
        before = step[t - 1]
        for z in range(zones):
            leave = value[z, WAIT]
            np.min(np.take(moves, seen_from[z], axis=2) + away[z][:, None, None], axis=0, out=leave)
            np.minimum(leave, starts[z], out=leave)
            np.minimum(leave[1:], before[z, WAIT, :-1], out=leave[1:])
        np.minimum(before[:, ON_SPOT] + spot + blocked, value[:, WAIT], out=value[:, ON_SPOT])
        np.minimum(before[:, ON_OD] + dear, value[:, WAIT], out=value[:, ON_OD])
        value[:, :, t:] = 0.0
        np.matmul(value.reshape(zones, -1, states), once, out=step[t].reshape(zones, -1, states))
        np.matmul(value[:, ON_SPOT], over_spot, out=launch[t, :, 0])
        np.matmul(value[:, ON_OD], over_od, out=launch[t, :, 1])
        if open_ is not None:
            begin = moves.min(0)
            np.minimum(begin[1:], open_[t - 1, :-1], out=begin[1:])
            begin[t:] = 0.0
            np.matmul(begin, once_fresh, out=open_[t])
    return Table(market=market, step=step, launch=launch, fresh=open_)
