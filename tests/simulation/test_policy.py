"""What the planner does with a deadline, against its peers and the bound, on small worlds."""

from __future__ import annotations

from random import Random

import pytest

from agent.model.snapshot import Policy
from agent.planner.plan import plan
from agent.simulate.workflows.bound import per_task, time_indexed
from agent.simulate.workflows.ensemble import feasible_ms
from agent.simulate.workflows.hindsight import hindsight
from agent.simulate.workflows.peers.every import WORKFLOW_PEERS
from agent.simulate.workflows.setting import SimulationSetting
from agent.simulate.workflows.simulation import simulate
from agent.simulate.workflows.workflow import Job
from tests.simulation.worlds import STARTUP, flow, job, on_demand, spot
from tests.values import MINUTE

FAN = flow(("a", 20, ()), *[(f"b{n}", 30, ("a",)) for n in range(6)], ("c", 10, tuple(f"b{n}" for n in range(6))))
SAFE = ("on-demand", "greedy", "uniform-task", "ic-pcp")


def markets(seed: int) -> list:
    """Two stormy zones and on demand."""
    r = Random(seed)
    return [
        spot(*[r.choice([0, 0, 1, 3, 6]) for _ in range(40)], name="z1"),
        spot(*[r.choice([0, 2, 2, 0, 1]) for _ in range(40)], name="z2"),
        on_demand(),
    ]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("percent", [100, 105, 130, 200])
def test_no_feasible_deadline_is_missed_with_exact_runtimes(seed, percent):
    minutes = feasible_ms(FAN, STARTUP) * percent // 100 // MINUTE + 1
    jobs = [job(FAN, minutes, at_minutes=45 * n, name=f"j{n}") for n in range(3)]
    made = simulate(jobs, markets(seed), plan, SimulationSetting(seed=seed))
    assert made.missed == ()


@pytest.mark.parametrize(("seed", "percent"), [(2, 120), (5, 120), (4, 150), (5, 150), (9, 150)])
def test_no_feasible_deadline_is_missed_by_tasks_that_go_back_to_spot(seed, percent):
    long = flow(("a", 200, ()), *[(f"b{n}", 300, ("a",)) for n in range(3)], checkpoint_ms=15 * MINUTE)
    minutes = feasible_ms(long, STARTUP) * percent // 100 // MINUTE
    jobs = [job(long, minutes, at_minutes=200 * n, name=f"j{n}") for n in range(3)]
    made = simulate(jobs, markets(seed), plan, SimulationSetting(seed=seed))
    assert made.moves
    assert made.missed == ()


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_keeps_the_deadlines_costs_less_than_the_bounds(seed):
    jobs = [job(FAN, 180, at_minutes=60 * n, name=f"j{n}") for n in range(3)]
    supplies = markets(seed)
    bound = max(per_task(jobs, supplies), time_indexed(jobs, supplies))
    assert bound > 0
    # those that wait for spot for ever are left out, for time
    for made in [plan, *(WORKFLOW_PEERS[name]() for name in (*SAFE, "uniform", "fallback-back", "ray"))]:
        result = simulate(jobs, supplies, made, SimulationSetting(seed=seed))
        assert result.missed or result.usd_micros >= bound


def test_with_slack_and_calm_markets_it_is_cheaper_than_every_peer():
    jobs = [job(FAN, 240, at_minutes=300 * n, name=f"j{n}") for n in range(2)]
    supplies = [spot(6), on_demand()]
    ours = simulate(jobs, supplies, plan, SimulationSetting()).usd_micros
    for name in WORKFLOW_PEERS:
        assert ours < simulate(jobs, supplies, WORKFLOW_PEERS[name](), SimulationSetting()).usd_micros, name


def test_a_deadline_already_past_is_placed_for_the_least_lateness():
    late = Job(name="late", workflow=FAN, arrives_ms=60 * MINUTE, deadline_ms=10 * MINUTE)
    made = simulate([late], [spot(0), on_demand()], plan, SimulationSetting())
    assert made.missed == ("late",)
    assert made.ends["late"] - late.arrives_ms <= feasible_ms(FAN, STARTUP) * 1.1


def test_without_a_deadline_work_still_ends():
    made = simulate([job(FAN, None)], [spot(0, 0, 2), on_demand()], plan, SimulationSetting())
    assert set(made.ends) == {"job"}


def test_hindsight_is_never_dearer_than_what_it_was_given():
    jobs, supplies = [job(FAN, 180)], markets(1)
    online = simulate(jobs, supplies, plan, SimulationSetting(seed=1))
    best = hindsight(jobs, supplies, SimulationSetting(seed=1), 4, [online])
    assert not best.missed
    assert best.usd_micros <= online.usd_micros


@pytest.mark.parametrize("name", SAFE)
def test_peers_with_a_safety_net_keep_it(name):
    jobs = [job(FAN, 200, at_minutes=45 * n, name=f"j{n}") for n in range(3)]
    assert simulate(jobs, markets(2), WORKFLOW_PEERS[name](), SimulationSetting(seed=2)).missed == ()


def test_a_task_that_had_to_start_on_demand_goes_back_to_spot_when_it_returns_and_does_nothing_twice():
    long = flow(("a", 600, ()), checkpoint_ms=15 * MINUTE)
    # no capacity for two hours, more than enough after
    supplies = [spot(*[0] * 12, 4), on_demand()]
    policy = Policy(delay_usd_micros_per_hour=20_000_000)
    made = simulate([job(long, None)], supplies, plan, SimulationSetting(policy=policy))
    assert (made.moves, made.preemptions) == (1, 0)
    assert sum(span.busy_ms for span in made.spans) == 600 * MINUTE
    assert {span.pool for span in made.spans if span.busy_ms} == {"on-demand", "spot"}
    bare = flow(("a", 600, ()))
    stays = simulate([job(bare, None)], supplies, plan, SimulationSetting(policy=policy))
    assert stays.moves == 0
    assert made.usd_micros < stays.usd_micros / 2


def test_a_task_that_went_back_and_lost_its_worker_goes_on_from_its_checkpoint():
    long = flow(("a", 600, ()), checkpoint_ms=15 * MINUTE)
    supplies = [spot(*[0] * 12, *[4] * 12, *[0] * 12, 4), on_demand()]
    policy = Policy(delay_usd_micros_per_hour=20_000_000)
    made = simulate([job(long, None)], supplies, plan, SimulationSetting(policy=policy))
    assert made.preemptions == 1
    assert made.moves == 2
    assert sum(span.busy_ms for span in made.spans) == 600 * MINUTE
    assert sum(span.lost_ms for span in made.spans) < 15 * MINUTE
