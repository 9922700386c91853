"""What is believed of the zones that sell spot instances: how often they lose and regain capacity, and whether they have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.planner.horizon import Floats, kernels


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


class Beliefs:
    """Of each zone: posterior rates, the spell it is in, and the probability that it has capacity now.

    A zone is a two-state chain. Each tick in which it was seen up (or down), and in the tick before too, adds the tick
    to its hours up (or down) and a change to its losses (or returns): the conjugate update of a Gamma prior with
    Poisson counts, in which a spell that goes on is censored. Nothing is inferred from ticks in which it was not asked.
    """

    def __init__(self, zones: int, tick_h: float, prior: Prior):
        self.zones, self.tick_h, self.prior = zones, tick_h, prior
        self.losses = np.full(zones, prior.up_worth)
        self.up_h = self.losses * prior.up_h
        self.returns = np.full(zones, prior.down_worth)
        self.down_h = self.returns * prior.down_h
        #: [zones] probability of capacity now
        self.up = self.return_per_h / (self.return_per_h + self.loss_per_h)
        self._now: list[bool | None] = [None] * zones
        self._last: list[bool | None] = [None] * zones

    @property
    def loss_per_h(self) -> Floats:
        """[zones] losses per hour up, posterior means."""
        return self.losses / self.up_h

    @property
    def return_per_h(self) -> Floats:
        """[zones] returns per hour down, posterior means."""
        return self.returns / self.down_h

    def pass_ticks(self, ticks: int) -> None:
        """Time passes; what was seen now becomes the past."""
        if ticks <= 0:
            return
        chain = kernels(self.loss_per_h, self.return_per_h, self.tick_h * ticks)
        self.up = (1 - self.up) * chain[:, 0, 1] + self.up * chain[:, 1, 1]
        self._last = self._now if ticks == 1 else [None] * self.zones
        self._now = [None] * self.zones

    def saw(self, zone: int, up: bool) -> None:
        """A zone had capacity now, or had none."""
        if self._now[zone] is None and self._last[zone] is not None:
            if self._last[zone]:
                self.up_h[zone] += self.tick_h
                self.losses[zone] += not up
            else:
                self.down_h[zone] += self.tick_h
                self.returns[zone] += up
        self._now[zone] = up
        self.up[zone] = float(up)
