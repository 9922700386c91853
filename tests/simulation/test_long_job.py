"""The planner as the policy of a long job: deadlines, bounds, determinism, other people's classes."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import pytest

from agent.planner.long_job.beliefs import Beliefs, Prior
from agent.planner.long_job.setting import LongJobSetting
from agent.simulate.long_job.bound import optimum
from agent.simulate.long_job.peers.simple import OnDemandOnly, SpotUntilLate
from agent.simulate.long_job.peers.skynomad import SkyNomad
from agent.simulate.long_job.peers.uniform import (
    ByAvailability,
    ByAvailabilityAndPrice,
    EagerFailover,
    UniformProgressOfJob,
)
from agent.simulate.long_job.policy import PlannedPolicy, policy
from agent.simulate.long_job.protocol import IDLE, ON_DEMAND, SPOT, LaunchInstance, LongJobPolicy, Seen
from agent.simulate.long_job.simulator import run
from agent.simulate.long_job.trace import ZoneTrace, job_of, read_egress, read_folder

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PEERS = (
    OnDemandOnly,
    SpotUntilLate,
    UniformProgressOfJob,
    EagerFailover,
    ByAvailability,
    ByAvailabilityAndPrice,
    SkyNomad,
)


def world(seed: int, ticks: int, tick_s: float = 600.0, zones: int = 3) -> list[ZoneTrace]:
    """Zones whose spells are adversarially mixed: none at all, flicker, long, and losses just after a launch."""
    r, out = Random(seed), []
    for n in range(zones):
        up, spells = [], r.choice([(1, 1), (1, 3), (8, 4), (40, 20), (2, 60)])
        state = r.random() < 0.5
        while len(up) < ticks:
            up += [state] * max(1, round(r.expovariate(1 / spells[not state])))
            state = not state
        if r.random() < 0.2:
            up = [False] * ticks
        out.append(
            ZoneTrace(
                zone=f"us-{'east' if n % 2 else 'west'}-1{'abcdef'[n]}",
                region=f"us-{'east' if n % 2 else 'west'}-1",
                tick_s=tick_s,
                available=np.array(up[:ticks]),
                spot_usd_h=np.full(ticks, r.uniform(0.5, 2.0)),
                on_demand_usd_h=r.uniform(2.5, 4.0),
            )
        )
    return out


@pytest.mark.parametrize("seed", range(24))
def test_no_deadline_that_on_demand_could_meet_is_missed_and_nothing_beats_the_bound(seed):
    r = Random(seed)
    tick, deadline = r.choice([195.0, 600.0, 900.0]), 12 * 3600.0 + r.random() * 900
    zones = world(seed, int(deadline / tick) + 2, tick)
    startup = r.choice([0.0, 120.0, 720.0, 1500.0])
    whole = int(deadline / tick) * tick
    # from barely feasible to loose
    work = max(tick, (whole - startup) / r.choice([1.0, 1.0, 1.002, 1.02, 1.1, 1.5, 3.0]))
    job = job_of(zones, work_s=work, deadline_s=deadline, startup_s=startup)
    bound = optimum(zones, job)
    out = run(policy(), zones, job)
    assert not out.missed
    assert out.cost_usd >= bound - 1e-6
    for peer in PEERS:
        other = run(peer(), zones, job)
        assert other.missed or other.cost_usd >= bound - 1e-6, peer


def test_a_deadline_that_only_just_holds_goes_on_demand_at_once():
    zones = world(1, 40)
    job = job_of(zones, work_s=30 * 600.0 - 720, deadline_s=30 * 600.0)
    p = policy()
    p.start(job)
    assert p.decide(Seen(0.0, job.work_s, IDLE, None, None, 0.0, None, (1.0,) * 3, (3.0, 2.9, 3.0))) == LaunchInstance(
        1, ON_DEMAND
    )


def test_a_deadline_already_lost_is_placed_for_the_least_lateness():
    zones = world(1, 40)
    job = job_of(zones, work_s=40 * 600.0, deadline_s=30 * 600.0)
    out = run(policy(), zones, job)
    assert out.missed
    assert (out.launches, out.on_demand_h) == (1, 5.0)


def test_it_is_deterministic_and_a_second_job_does_not_remember_the_first():
    zones = world(3, 120)
    job = job_of(zones, work_s=40 * 600.0, deadline_s=70 * 600.0)
    p = policy()
    first = run(p, zones, job)
    assert run(p, zones, job) == first == run(policy(), zones, job)


def test_the_order_of_the_zones_does_not_matter():
    zones = world(5, 120)
    job = job_of(zones, work_s=40 * 600.0, deadline_s=70 * 600.0)
    turned = zones[::-1]
    other = job_of(turned, work_s=40 * 600.0, deadline_s=70 * 600.0)
    assert run(policy(), zones, job).cost_usd == pytest.approx(run(policy(), turned, other).cost_usd)


def test_spot_that_stays_is_taken_at_once_and_kept():
    up = np.ones(200, bool)
    zones = [
        ZoneTrace(zone=z, region=z[:-1], tick_s=600.0, available=up, spot_usd_h=np.full(200, usd), on_demand_usd_h=3.0)
        for z, usd in (("us-west-2a", 1.2), ("us-east-1a", 1.0))
    ]
    job = job_of(zones, work_s=40 * 600.0, deadline_s=70 * 600.0)
    out = run(policy(), zones, job)
    assert (out.launches, out.spot_h) == (1, pytest.approx(41 / 6))
    assert out.cost_usd == pytest.approx(optimum(zones, job))


def test_with_slack_it_goes_back_to_the_cheaper_zone_from_one_that_never_failed():
    ticks = 320
    comes_back = np.ones(ticks, bool)
    comes_back[8:42] = False
    zones = [
        ZoneTrace(
            zone=f"{region}-a",
            region=region,
            tick_s=600.0,
            available=up,
            spot_usd_h=np.full(ticks, usd),
            on_demand_usd_h=90.0,
        )
        for region, up, usd in (("europe-west1", comes_back, 15.0), ("asia-southeast1", np.ones(ticks, bool), 19.3))
    ]
    job = job_of(zones, work_s=42 * 3600.0, deadline_s=52 * 3600.0)
    out = run(policy(), zones, job)
    assert (out.moves, out.on_demand_h) == (2, 0.0)
    assert out.cost_usd <= 1.1 * optimum(zones, job)


def test_a_zone_that_stays_away_is_left_for_one_that_has_capacity_before_the_slack_is_gone():
    tick, ticks = 600.0, 6 * 48
    away = [True] * 24 + [False] * (ticks - 24)
    zones = [
        ZoneTrace(
            zone=f"us-{side}-1a",
            region=f"us-{side}-1",
            tick_s=tick,
            available=np.array(up),
            spot_usd_h=np.full(ticks, usd),
            on_demand_usd_h=80.0,
        )
        for side, up, usd in (("east", away, 17.0), ("west", [True] * ticks, 19.0))
    ]
    job = job_of(zones, work_s=20 * 3600, deadline_s=40 * 3600)
    out = run(policy(), zones, job)
    assert out.on_demand_h == 0
    assert out.moves == 1
    assert out.finished_s < 30 * 3600


def test_who_has_capacity_does_not_wait_for_a_little_less_money():
    """A zone that is away is 8 % cheaper than three with capacity: with those at hand, waiting for it looks free."""
    ticks = 60 * 6
    zones = [
        ZoneTrace(
            zone=f"{side}-a",
            region=side,
            tick_s=600.0,
            available=np.full(ticks, side != "west"),
            spot_usd_h=np.full(ticks, usd),
            on_demand_usd_h=80.0,
        )
        for side, usd in (("east", 19.0), ("north", 19.0), ("south", 19.3), ("west", 17.5))
    ]
    out = run(policy(), zones, job_of(zones, work_s=26 * 3600, deadline_s=52 * 3600))
    assert (out.on_demand_h, out.launches) == (0, 1)
    assert out.finished_s < 30 * 3600


def test_what_a_zone_that_is_down_does_next_depends_on_how_long_it_has_been():
    beliefs = Beliefs(
        2, 0.25, Prior(up_h=4, up_worth=25, down_h=0.8, down_worth=24, down_most=1.5), LongJobSetting().regimes
    )
    fresh = beliefs.own[1].copy()
    for _ in range(40):
        beliefs.saw(0, False)
        beliefs.pass_ticks(1)
    assert beliefs.own[1][0] == pytest.approx(1.5 / 10)
    assert beliefs.own[1][1] == fresh[1]
    beliefs.saw(0, True)
    assert beliefs.own[1][0] > 0.5


def test_slack_is_worth_more_the_less_there_is_of_it():
    zones = world(3, 400)
    prices = []
    for ratio in (1.05, 1.2, 1.5, 2.5):
        job = job_of(zones, work_s=50 * 3600.0 / ratio, deadline_s=50 * 3600.0)
        p = policy()
        p.start(job)
        prices.append(p.shadow_price_usd_h(Seen(0.0, job.work_s, IDLE, None, None, 0.0, None, (1.0,) * 3, (3.0,) * 3)))
    assert prices == sorted(prices, reverse=True)
    assert prices[0] > 0


# another project's classes of the same shape


class TheirLaunch(NamedTuple):
    zone: int
    kind: str


class TheirResult(NamedTuple):
    action: object
    ok: bool


@dataclass(frozen=True)
class TheirZone:
    name: str
    region: str


@dataclass(frozen=True)
class TheirJob:
    work_s: float
    deadline_s: float
    startup_s: float
    tick_s: float
    checkpoint_gb: float
    probe_s: float
    zones: tuple
    egress_usd: tuple


@dataclass
class TheirSeen:
    now_s: float
    work_left_s: float
    mode: str
    zone: int | None
    home: int | None
    startup_left_s: float
    preempted: int | None
    spot_usd_h: tuple
    on_demand_usd_h: tuple
    tried: list = field(default_factory=list)


THEIR_JOB = TheirJob(
    36000.0, 39600.0, 720.0, 600.0, 50.0, 60.0, (TheirZone("a", "x"), TheirZone("b", "y")), ((0.0, 1.0), (1.0, 0.0))
)


def test_it_plays_in_a_simulator_with_classes_of_its_own():
    p = policy()
    assert isinstance(p, LongJobPolicy)
    p.start(THEIR_JOB)
    seen = TheirSeen(0.0, 36000.0, IDLE, None, None, 0.0, None, (1.0, 1.1), (3.0, 3.0))
    first = p.decide(seen)
    assert (first.zone, first.kind, type(first).__name__) == (0, SPOT, "LaunchInstance")
    seen.tried.append(TheirResult(TheirLaunch(*first), False))
    assert tuple(p.decide(seen)) == (1, SPOT)
    seen.tried.append(TheirResult(TheirLaunch(1, SPOT), True))
    seen.mode, seen.zone, seen.startup_left_s = SPOT, 1, 720.0
    assert p.decide(seen) is None


def test_its_answers_are_of_the_callers_class_where_there_is_one(monkeypatch):
    module = types.ModuleType("their_protocol")
    module.LaunchInstance = TheirLaunch
    monkeypatch.setitem(sys.modules, "their_protocol", module)
    monkeypatch.setattr(TheirJob, "__module__", "their_protocol")
    p = policy()
    p.start(THEIR_JOB)
    assert isinstance(
        p.decide(TheirSeen(0.0, 36000.0, IDLE, None, None, 0.0, None, (1.0, 1.1), (3.0, 3.0))), TheirLaunch
    )


def test_decide_before_start_says_so():
    with pytest.raises(RuntimeError, match="before start"):
        PlannedPolicy().decide(Seen(0.0, 1.0, IDLE, None, None, 0.0, None, (1.0,), (3.0,)))


@pytest.mark.skipif(not (DATA / "spot" / "v100").is_dir(), reason="the real traces are not beside this checkout")
def test_the_published_optimum_is_found_on_the_published_windows():
    zones = read_folder(DATA / "spot" / "v100")
    chosen = [zones[z] for z in ("us-east-1c", "us-east-2b", "us-west-2a")]
    egress = read_egress(DATA / "spot" / "aws_egress_usd_per_gb.csv")
    job = job_of(chosen, work_s=39.939 * 3600, deadline_s=59.908 * 3600, egress=egress)
    bound = optimum(chosen, job, 3 * 1106)
    assert bound == pytest.approx(37.741, abs=1e-3)
    out = run(policy(), chosen, job, 3 * 1106)
    assert not out.missed
    assert bound <= out.cost_usd <= 1.25 * bound
