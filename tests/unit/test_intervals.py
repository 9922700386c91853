"""Intervals of counts, against scipy's where it is installed, and by their definition."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import pytest

from agent.planner.intervals import negative_binomial_interval

MEANS = (1e-4, 0.05, 0.7, 3.0, 24.0, 700.0, 4000.0)
DISPERSIONS = (1.000001, 1.01, 1.5, 4.0, 39.0)
LEVELS = (0.5, 0.9, 0.95, 0.999)


@pytest.mark.parametrize("mean", MEANS)
def test_the_interval_is_that_of_scipy(mean):
    stats = pytest.importorskip("scipy.stats")
    for dispersion, level in product(DISPERSIONS, LEVELS):
        low, high = stats.nbinom.interval(level, mean / (dispersion - 1), 1 / dispersion)
        assert negative_binomial_interval(level, mean=mean, dispersion=dispersion) == (int(low), int(high))


def test_the_interval_of_a_great_count_is_close_to_scipys_and_takes_no_time():
    stats = pytest.importorskip("scipy.stats")
    low, high = stats.nbinom.interval(0.9, 1e6 / 3, 1 / 4)
    assert negative_binomial_interval(0.9, mean=1e6, dispersion=4) == pytest.approx((low, high), rel=1e-3)
    assert negative_binomial_interval(0.9, mean=1e300, dispersion=4)[0] > 0


def test_a_rare_count_is_mostly_none():
    # P(0) = 1.5 ** -(0.02 / 0.5) = 0.984: the upper quantile at 0.95 is 0, at 0.995 it is 1 or more
    assert negative_binomial_interval(0.9, mean=0.02, dispersion=1.5) == (0, 0)
    assert negative_binomial_interval(0.99, mean=0.02, dispersion=1.5)[1] >= 1


@pytest.mark.parametrize(
    ("level", "mean", "dispersion"),
    [(0.0, 1, 2), (1.0, 1, 2), (0.9, 0, 2), (0.9, float("inf"), 2), (0.9, 1, 1.0), (0.9, float("nan"), 2)],
)
def test_an_interval_that_cannot_be_is_refused(level, mean, dispersion):
    with pytest.raises(ValueError, match="no interval"):
        negative_binomial_interval(level, mean=mean, dispersion=dispersion)


def test_losses_of_spot_workers_are_told_without_scipy():
    # a core install has no scipy: None in sys.modules makes its import fail, as there
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "from agent.governor import desk\n"
        "from agent.state.statistics import Statistics\n"
        "print(Statistics().losses('spot', 0.5, 24, 0.9))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    low, high = (int(x) for x in done.stdout.strip("()\n").split(","))
    assert low < 12 < high
