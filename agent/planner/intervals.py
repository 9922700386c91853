"""Intervals of counts, without a statistics library: they are shown by a core install too."""

from __future__ import annotations

import math
from statistics import NormalDist

#: from this mean on the normal approximation is as good as what people read, and a sum of so many terms takes too long
MANY = 10_000


def negative_binomial_interval(level: float, *, mean: float, dispersion: float) -> tuple[int, int]:
    """The central interval, of this level, of a negative binomial count: its quantiles at (1 ∓ level) / 2.

    Exact below a mean of `MANY`, normal from there on.

    Args:
        level: in (0, 1), at most 1 - 1e-9: further out, sums of doubles no longer tell the quantiles.
        mean: expected count, positive.
        dispersion: variance over mean, above 1 (1 would be Poisson).

    Raises:
        ValueError: an argument out of its range.
    """
    if not (0 < level <= 1 - 1e-9 and 0 < mean < math.inf and 1 < dispersion < math.inf):
        raise ValueError(f"no interval: level {level}, mean {mean}, dispersion {dispersion}")
    if mean >= MANY:
        normal = NormalDist(mean, math.sqrt(mean * dispersion))
        low, high = (round(normal.inv_cdf(q)) for q in ((1 - level) / 2, (1 + level) / 2))
        return max(0, low), high
    # n successes of probability 1 / dispersion; the mass goes by its ratio, in logarithms, which do not underflow
    successes, failure = mean / (dispersion - 1), 1 - 1 / dispersion
    log_mass, log_failure = -successes * math.log(dispersion), math.log(failure)
    below, count, out = 0.0, 0, []
    for wanted in ((1 - level) / 2, (1 + level) / 2):
        while True:
            reached = below + math.exp(log_mass)
            if reached >= wanted:
                break
            below = reached
            log_mass += math.log((count + successes) / (count + 1)) + log_failure
            count += 1
        out.append(count)
    return out[0], out[1]
