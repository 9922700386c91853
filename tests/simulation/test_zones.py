"""The long-job simulator against schedules worked out by hand."""

from __future__ import annotations

import pytest

from agent.errors import SimulationError, TraceError
from agent.simulate.long_job.bound import optimum
from agent.simulate.long_job.peers.simple import Fallback, FallbackAndBack, OnDemandOnly, Retries, SpotUntilLate
from agent.simulate.long_job.protocol import ON_DEMAND, SPOT, LaunchInstance, ProbeZone, StopInstance
from agent.simulate.long_job.simulator import run
from agent.simulate.long_job.trace import job_of

HOUR = 3600.0


class Script:
    """Does what it is told at each tick, and keeps what it saw."""

    def __init__(self, **at):
        self.at, self.seen = {int(k[1:]): list(v) for k, v in at.items()}, []

    def start(self, job):
        self.job = job

    def decide(self, seen):
        todo = self.at.get(round(seen.now_s / self.job.tick_s), [])
        if not seen.tried:
            self.seen.append(
                (seen.mode, seen.zone, seen.home, seen.preempted, seen.work_left_s / HOUR, seen.startup_left_s)
            )
        return todo[len(seen.tried)] if len(seen.tried) < len(todo) else None


def job(traces, work_h, deadline_h, startup_h=0.5, **more):
    return job_of(traces, work_s=work_h * HOUR, deadline_s=deadline_h * HOUR, startup_s=startup_h * HOUR, **more)


def test_a_start_up_is_billed_and_makes_no_progress_and_the_last_tick_is_free(trace):
    zones = [trace("11111", spot=2.0)]
    out = run(Script(t0=[LaunchInstance(0, SPOT)]), zones, job(zones, 2.0, 5.0))
    # ticks: half an hour of progress, a whole one, then the last half, which is not billed
    assert out.cost_usd == pytest.approx(4.0)
    assert out.finished_s == pytest.approx(2.5 * HOUR)


def test_progress_survives_a_loss_and_the_next_launch_pays_its_start_up_again(trace):
    zones = [trace("1011111")]
    script = Script(t0=[LaunchInstance(0, SPOT)], t2=[LaunchInstance(0, SPOT)])
    out = run(script, zones, job(zones, 1.5, 7.0))
    assert script.seen[1] == ("idle", None, 0, 0, pytest.approx(1.0), 0.0)
    assert (out.preemptions, out.launches, out.moves) == (1, 2, 0)
    assert out.cost_usd == pytest.approx(2.0)


def test_a_refused_launch_costs_nothing_and_several_attempts_fit_in_a_tick(trace):
    zones = [trace("00000"), trace("11111", spot=1.5, zone="us-west-2a")]
    out = run(Script(t0=[LaunchInstance(0, SPOT), LaunchInstance(1, SPOT)]), zones, job(zones, 1.0, 5.0))
    assert (out.launches, out.cost_usd) == (1, pytest.approx(1.5))


def test_a_move_between_regions_pays_egress_and_within_one_does_not(trace):
    zones = [trace("111111"), trace("111111", zone="us-east-1b"), trace("111111", zone="us-west-2a")]
    script = Script(t0=[LaunchInstance(0, SPOT)], t1=[LaunchInstance(1, SPOT)], t2=[LaunchInstance(2, SPOT)])
    out = run(script, zones, job(zones, 2.0, 6.0))
    assert (out.moves, out.egress_usd) == (2, pytest.approx(50 * 0.02))


def test_the_running_instance_goes_on_when_a_move_is_refused(trace):
    zones = [trace("11111"), trace("00000", zone="us-west-2a")]
    out = run(Script(t0=[LaunchInstance(0, SPOT)], t1=[LaunchInstance(1, SPOT)]), zones, job(zones, 2.0, 5.0))
    assert out.finished_s == pytest.approx(2.5 * HOUR)


def test_a_granted_probe_costs_a_minute_of_spot_and_a_refused_one_nothing(trace):
    zones = [trace("11111"), trace("01111", spot=6.0, zone="us-west-2a")]
    script = Script(t0=[LaunchInstance(0, SPOT), ProbeZone(1)], t1=[ProbeZone(1)])
    out = run(script, zones, job(zones, 2.0, 5.0))
    assert out.probe_usd == pytest.approx(0.1)
    assert out.cost_usd == pytest.approx(2.1)


def test_each_on_demand_price_is_its_zones_own(trace):
    zones = [trace("000", on_demand=3.0), trace("000", on_demand=5.0, zone="us-west-2a")]
    assert run(Script(t0=[LaunchInstance(1, ON_DEMAND)]), zones, job(zones, 1.0, 3.0)).cost_usd == pytest.approx(5.0)


def test_work_that_ends_after_the_deadline_is_a_miss(trace):
    zones = [trace("1111")]
    assert run(Script(), zones, job(zones, 1.0, 3.0)).missed
    late = run(Script(t2=[LaunchInstance(0, SPOT)]), zones, job(zones, 1.0, 3.2))
    assert late.missed
    assert not run(Script(t2=[LaunchInstance(0, SPOT)]), zones, job(zones, 1.0, 3.5)).missed


def test_stopping_ends_the_bill(trace):
    zones = [trace("11111")]
    out = run(Script(t0=[LaunchInstance(0, SPOT)], t1=[StopInstance()]), zones, job(zones, 2.0, 5.0))
    assert out.missed
    assert out.cost_usd == pytest.approx(1.0)


@pytest.mark.parametrize("action", [LaunchInstance(1, SPOT), LaunchInstance(0, "reserved"), ProbeZone(-1), "spot"])
def test_what_there_is_not_is_refused_by_name(trace, action):
    zones = [trace("111")]
    with pytest.raises(SimulationError, match="asked for"):
        run(Script(t0=[action]), zones, job(zones, 1.0, 3.0))


def test_a_policy_that_never_settles_is_stopped(trace):
    zones = [trace("000")]
    with pytest.raises(SimulationError, match="without settling"):
        run(Script(t0=[LaunchInstance(0, SPOT)] * 2000), zones, job(zones, 1.0, 3.0))


def test_a_trace_shorter_than_the_deadline_is_refused(trace):
    zones = [trace("11")]
    with pytest.raises(TraceError, match=r"us-east-1a: 2 samples .* needs 3"):
        run(Script(), zones, job(zones, 1.0, 3.0))


def test_peers_do_what_their_rule_says(trace):
    zones = [trace("100010000000")]
    j = job(zones, 4.0, 12.0)
    assert run(OnDemandOnly(), zones, j).on_demand_h == 4.0
    assert run(Retries(), zones, j).missed
    greedy = run(SpotUntilLate(), zones, j)
    assert (greedy.missed, greedy.spot_h) == (False, 2.0)
    stays, comes_back = run(Fallback(), zones, j), run(FallbackAndBack(), zones, j)
    assert (stays.spot_h, comes_back.spot_h) == (1.0, 2.0)


def test_the_bound_is_the_cheapest_schedule(trace):
    # waiting for the second zone's long spell: 4 ticks at 1.0, of which the last is free, beat any move
    zones = [trace("1100000000", spot=1.0), trace("0000111100", spot=1.0, zone="us-east-1b")]
    assert optimum(zones, job(zones, 3.5, 8.0)) == pytest.approx(3.0)
    # no spot at all
    none = [trace("0000000000", on_demand=3.0)]
    assert optimum(none, job(none, 3.5, 8.0)) == pytest.approx(9.0)
    # too late for anything
    assert optimum(none, job(none, 7.6, 8.0)) == float("inf")
