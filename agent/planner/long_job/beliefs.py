"""What is believed of the zones that sell spot instances: how often they lose and regain capacity, and whether they
have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.model.market import MarketBeliefs, ZoneBelief
from agent.planner.long_job.horizon import Floats, changes, kernels

#: hours after which the first regime is forgotten
LONG_H = 1e4
#: what was thought impossible and is seen counts as so likely
TINY = 1e-9
#: rates are planned with in steps of this (logarithm)
GRID = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """A zone before anything was seen of it: Gamma distributions of its rates."""

    #: hours up per loss
    up_h: float
    #: losses that this is worth
    up_worth: float
    #: hours down per return
    down_h: float
    #: returns that this is worth
    down_worth: float
    #: a zone that was seen down for t hours returns at this over t an hour, at most: outages are of many lengths, and
    #: what is left of one grows with what has passed (a hazard of return that falls as 1/t)
    down_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Regimes:
    """Times of a whole market, calm and tight: outages and losses of its zones come together."""

    #: by regime: how many times as often as on average a zone loses its capacity
    loss_times: tuple[float, ...]
    #: and regains it
    return_times: tuple[float, ...]
    #: [from][to] changes per hour; the diagonal is not read
    change_per_h: tuple[tuple[float, ...], ...]


#: by zone: losses an hour up, returns an hour down, and what the returns are at most; in a regime as on average
Rates = tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]


def _on_grid(rates: Floats, one: float) -> tuple[float, ...]:
    """Each rate as the nearest of one · e^(k·GRID)."""
    return tuple(
        math.inf if math.isinf(rate) else one * math.exp(GRID * round(math.log(max(rate, TINY) / one) / GRID))
        for rate in rates.tolist()
    )


class Beliefs:
    """Of the market: the regime it is in. Of each zone: posterior rates, and the probability that it has capacity now.

    A zone is a two-state chain whose rates are its own times the regime's. Each tick in which it was seen up (or down),
    and in the tick before too, adds the tick, times the regime's factor, to its hours up (or down) and a change to its
    losses (or returns): the conjugate update of a Gamma prior with Poisson counts, in which a spell that goes on is
    censored. Nothing is inferred from ticks in which it was not asked. A zone that stays down returns the more slowly
    the longer it does. The regime is filtered by what all zones show (a Markov-modulated process; Fischer and
    Meier-Hellstern 1993), with the zones independent given the regime.
    """

    def __init__(self, zones: int, tick_h: float, prior: Prior, regimes: Regimes):
        self.zones, self.tick_h, self.prior = zones, tick_h, prior
        self.losses = np.full(zones, prior.up_worth)
        self.up_h = self.losses * prior.up_h
        self.returns = np.full(zones, prior.down_worth)
        self.down_h = self.returns * prior.down_h
        #: [zones] hours in which it was seen down, since it was seen up
        self._away_h = np.zeros(zones)
        self._loss_times, self._return_times = np.array(regimes.loss_times), np.array(regimes.return_times)
        #: [R, R] changes of the regime per hour
        self.change_per_h: Floats = np.array(regimes.change_per_h, float)
        #: [R] probability of each regime now, at first that of a long time
        self.weight: Floats = changes(self.change_per_h, LONG_H)[0]
        #: [R, zones] probability of capacity now, given the regime
        self.up: Floats = self.return_per_h / (self.return_per_h + self.loss_per_h)
        #: what was seen of each zone in this tick
        self.now: list[bool | None] = [None] * zones
        self._last: list[bool | None] = [None] * zones

    @classmethod
    def of(cls, known: MarketBeliefs, zones: Sequence[str], prior: Prior, regimes: Regimes) -> Beliefs:
        """What a snapshot says is believed, of some of its zones; of a zone it does not name,
        what is believed before.
        """
        made = cls(len(zones), known.tick_h, prior, regimes)
        by_name = {zone.name: zone for zone in known.zones}
        made.weight = np.array(known.weight)
        for at, name in enumerate(zones):
            if (zone := by_name.get(name)) is None:
                continue
            made.losses[at], made.up_h[at], made.returns[at] = zone.losses, zone.up_h, zone.returns
            made.down_h[at], made._away_h[at], made.up[:, at] = zone.down_h, zone.away_h, zone.up
            made.now[at] = zone.now
        return made

    def value(self, zones: Sequence[str], *, name: str = "", speed: int = 1, ends_ms: int = 0) -> MarketBeliefs:
        """All that is believed, as a value. See `MarketBeliefs`."""
        return MarketBeliefs(
            name=name,
            speed=speed,
            ends_ms=ends_ms,
            tick_h=self.tick_h,
            weight=tuple(self.weight.tolist()),
            zones=tuple(
                ZoneBelief(
                    name=name, losses=float(self.losses[at]), up_h=float(self.up_h[at]),
                    returns=float(self.returns[at]), down_h=float(self.down_h[at]), away_h=float(self._away_h[at]),
                    up=tuple(self.up[:, at].tolist()), now=self.now[at],
                )
                for at, name in enumerate(zones)
            ),
        )  # fmt: skip

    @property
    def loss_per_h(self) -> Floats:
        """[R, zones] losses per hour up, posterior means."""
        return np.outer(self._loss_times, self.losses / self.up_h)

    @property
    def return_per_h(self) -> Floats:
        """[R, zones] returns per hour down: posterior means, less for a zone that stays down, in calm times too."""
        return np.minimum(np.outer(self._return_times, self.own[1]), self._slowest)

    def rates(self, zones: Sequence[int]) -> Rates:
        """[zones] the rates to plan with, on a grid: the same beliefs, or nearly the same, give the same table."""
        prior, of = self.prior, list(zones)
        away = self._away_h[of]
        slowest = np.where(away < prior.down_most * prior.down_h, np.inf, prior.down_most / np.maximum(away, TINY))
        return (
            _on_grid(self.losses[of] / self.up_h[of], 1 / prior.up_h),
            _on_grid(self.returns[of] / self.down_h[of], 1 / prior.down_h),
            _on_grid(slowest, prior.down_most),
        )

    def by_regime(self, rates: Rates) -> tuple[Floats, Floats]:
        """[R, zones] losses per hour up and returns per hour down of such rates."""
        loss, back, slowest = (np.array(part) for part in rates)
        return np.outer(self._loss_times, loss), np.minimum(
            np.outer(self._return_times, np.minimum(back, slowest)), slowest
        )

    @property
    def own(self) -> tuple[Floats, Floats]:
        """[zones], [zones]: losses per hour up and returns per hour down in a regime as on average."""
        return self.losses / self.up_h, np.minimum(self.returns / self.down_h, self._slowest)

    @property
    def _slowest(self) -> Floats:
        return self.prior.down_most / np.maximum(self._away_h, TINY)

    def pass_ticks(self, ticks: int) -> None:
        """Time passes; what was seen now becomes the past."""
        if ticks <= 0:
            return
        hours = self.tick_h * ticks
        moved = np.empty_like(self.up)
        for r, (loss, back) in enumerate(zip(self.loss_per_h, self.return_per_h, strict=True)):
            chain = kernels(loss, back, hours)
            moved[r] = (1 - self.up[r]) * chain[:, 0, 1] + self.up[r] * chain[:, 1, 1]
        joined = self.weight[:, None] * changes(self.change_per_h, hours)
        self.weight = joined.sum(0)
        self.up = joined.T @ moved / self.weight[:, None]
        self._away_h[[now is False for now in self.now]] += hours
        self._last = self.now if ticks == 1 else [None] * self.zones
        self.now = [None] * self.zones

    def given(self, zone: int, up: bool) -> tuple[Floats, Floats]:
        """[R] and [R, zones] as `weight` and `up`, if the zone had capacity now, or had none."""
        likely = self.up[:, zone] if up else 1 - self.up[:, zone]
        weight, moved = self.weight * np.maximum(likely, TINY), self.up.copy()
        moved[:, zone] = up
        return weight / weight.sum(), moved

    def saw(self, zone: int, up: bool) -> None:
        """A zone had capacity now, or had none."""
        self.weight, self.up = self.given(zone, up)
        if self.now[zone] is None and self._last[zone] is not None:
            if self._last[zone]:
                self.up_h[zone] += self.tick_h * float(self._loss_times @ self.weight)
                self.losses[zone] += not up
            else:
                self.down_h[zone] += self.tick_h * float(self._return_times @ self.weight)
                self.returns[zone] += up
        elif self.now[zone] and not up:
            # granted and lost in one tick
            self.losses[zone] += 1
        self.now[zone] = up
        if up:
            self._away_h[zone] = 0.0
