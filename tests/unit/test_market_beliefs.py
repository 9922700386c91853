"""What is believed of a market, as a value, and the decision that is made from it."""

from __future__ import annotations

import numpy as np
import pytest

from agent.model.codec import decode, encode
from agent.model.market import MarketBeliefs
from agent.planner.long_job.beliefs import Beliefs
from agent.planner.long_job.horizon import changes
from agent.planner.long_job.placement import LongJobPlacement
from agent.planner.long_job.setting import LongJobSetting
from agent.planner.long_job.values import LongJobState

ZONES = ("us-east-1a", "us-east-1b", "us-west-2a")
SETTING = LongJobSetting(cells=1e6)


def believed() -> Beliefs:
    """A zone that was lost and came back, one that is away, one that nobody asked."""
    beliefs = Beliefs(3, 0.25, SETTING.prior, SETTING.regimes)
    for tick in range(40):
        beliefs.saw(0, tick % 16 < 12)
        beliefs.saw(1, False)
        beliefs.pass_ticks(1)
    beliefs.saw(1, False)
    return beliefs


def state(left_h: float = 20.0) -> LongJobState:
    return LongJobState(
        work_h=10.0, left_h=left_h, mode="idle", zone=None, home=0, startup_left_h=0.0, spot_usd_h=(1.0, 0.9, 1.1),
        on_demand_usd_h=(3.0, 3.0, 3.0),
    )  # fmt: skip


def placement(beliefs: Beliefs) -> LongJobPlacement:
    return LongJobPlacement(startup_h=0.2, tick_h=0.25, egress_usd=np.zeros((3, 3)), setting=SETTING, beliefs=beliefs)


def test_beliefs_are_the_same_after_they_were_written_and_read():
    value = believed().value(ZONES)
    read = decode(MarketBeliefs, encode(value))
    assert read == value
    again = Beliefs.of(read, ZONES, SETTING.prior, SETTING.regimes)
    assert again.value(ZONES) == value
    assert np.array_equal(again.loss_per_h, believed().loss_per_h)
    assert np.array_equal(again.return_per_h, believed().return_per_h)


def test_of_a_zone_that_no_value_names_is_believed_what_was_before_anything_was_seen():
    fresh = Beliefs(1, 0.25, SETTING.prior, SETTING.regimes)
    known = Beliefs.of(believed().value(ZONES), ("us-east-1z",), SETTING.prior, SETTING.regimes)
    assert known.own[0] == pytest.approx(fresh.own[0])
    assert known.own[1] == pytest.approx(fresh.own[1])


def test_a_decision_does_not_depend_on_what_was_decided_before():
    at_once = placement(believed()).decide(state(11.0), ())
    later = placement(believed())
    for left_h in (40.0, 30.0, 20.0, 12.0, 11.5):
        later.decide(state(left_h), ())
    assert later.decide(state(11.0), ()) == at_once


def test_the_regimes_change_as_their_rates_say():
    rates = np.array([[0.0, 0.5], [0.25, 0.0]])
    stay = np.exp(-0.75 * 3)
    assert changes(rates, 3.0) == pytest.approx(
        np.array([[1 / 3 + 2 / 3 * stay, 2 / 3 * (1 - stay)], [1 / 3 * (1 - stay), 2 / 3 + 1 / 3 * stay]])
    )
    assert changes(rates, 0.0) == pytest.approx(np.eye(2))
    assert changes(rates, 1e4) == pytest.approx(np.array([[1 / 3, 2 / 3]] * 2))
