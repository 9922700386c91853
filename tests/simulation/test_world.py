"""What the world bills, refuses, takes and keeps, to the micro-dollar."""

from __future__ import annotations

import pytest

from agent.errors import TraceError, WorkflowError
from agent.planner.plan import plan
from agent.simulate.workflows import trace, workflow
from agent.simulate.workflows.peers.every import WORKFLOW_PEERS
from agent.simulate.workflows.setting import SimulationSetting
from agent.simulate.workflows.simulation import simulate
from agent.simulate.workflows.workflow import WorkflowTask
from tests.simulation.worlds import flow, job, on_demand, spot
from tests.values import HOUR, MINUTE

SETTING = SimulationSetting()


def test_a_worker_is_billed_from_its_grant_to_its_end_with_start_up_and_idle():
    made = simulate([job(flow(("a", 60, ())), 600)], [on_demand()], WORKFLOW_PEERS["on-demand"](), SETTING)
    (span,) = made.spans
    assert made.ends == {"job": 65 * MINUTE}
    assert (span.ready_ms - span.granted_ms, span.busy_ms) == (5 * MINUTE, HOUR)
    # the run ends the simulation: 65 minutes at $3.60 an hour
    assert made.usd_micros == 3_900_000


def test_the_minimum_is_billed_however_short_the_life():
    made = simulate(
        [job(flow(("a", 1, ())), 600)], [on_demand(min_billing_ms=HOUR)], WORKFLOW_PEERS["on-demand"](), SETTING
    )
    assert made.usd_micros == 3_600_000


def test_a_refused_launch_costs_nothing_and_is_asked_again():
    made = simulate([job(flow(("a", 10, ())), 600)], [spot(0, 0, 0, 1)], WORKFLOW_PEERS["spot-retries"](), SETTING)
    assert made.refusals > 0
    assert 30 * MINUTE + 15 * MINUTE <= made.ends["job"] <= 37 * MINUTE + 15 * MINUTE
    assert len(made.spans) == 1


def test_what_a_checkpoint_does_not_hold_is_done_again():
    taken = spot(1, 1, 1, 0, 1)
    without = simulate([job(flow(("a", 60, ())), 900)], [taken], WORKFLOW_PEERS["spot-retries"](), SETTING)
    kept = simulate(
        [job(flow(("a", 60, ()), checkpoint_ms=10 * MINUTE), 900)], [taken], WORKFLOW_PEERS["spot-retries"](), SETTING
    )
    assert without.preemptions == kept.preemptions == 1
    assert [span.lost_ms for span in without.spans] == [25 * MINUTE, 0]
    assert [span.lost_ms for span in kept.spans] == [5 * MINUTE, 0]
    assert without.ends["job"] - kept.ends["job"] == 20 * MINUTE


def test_prices_change_while_a_worker_runs():
    steps = trace.CapacityTrace(
        name="z", step_ms=10 * MINUTE, capacity=(1,) * 99, usd_micros_per_hour=(600_000, 1_200_000) + (0,) * 97
    )
    assert steps.cost(5 * MINUTE, 25 * MINUTE) == 250_000


def test_a_lost_part_of_a_fleet_leaves_the_rest_at_work():
    tasks = [(f"t{n}", 60, ()) for n in range(4)]
    made = simulate([job(flow(*tasks), 900)], [spot(4, 4, 2)], WORKFLOW_PEERS["spot-retries"](), SETTING)
    assert made.preemptions == 2
    assert sum(span.lost_ms == 0 for span in made.spans) >= 2
    assert not made.missed


def test_the_same_seed_gives_the_same_run_and_the_shares_add_up_to_the_whole():
    jobs = [
        job(flow(("a", 30, ()), ("b", 20, ("a",)), ("c", 50, ("a",))), 300, at_minutes=30 * n, name=f"j{n}")
        for n in range(3)
    ]
    supplies = [spot(1, 2, 0, 3, 1), on_demand()]
    first, second = (simulate(jobs, supplies, plan, SimulationSetting(seed=4)) for _ in range(2))
    assert first == second
    assert abs(sum(first.by_job.values()) - first.usd_micros) < 100
    assert sum(span.usd_micros for span in first.spans) == first.usd_micros


@pytest.mark.parametrize(
    ("tasks", "says"),
    [
        (
            [
                WorkflowTask(id="a", task_class="a", run_ms=1, parents=("b",)),
                WorkflowTask(id="b", task_class="b", run_ms=1, parents=("a",)),
            ],
            "cycle",
        ),
        ([WorkflowTask(id="a", task_class="a", run_ms=1, parents=("z",))], "waits for z"),
        ([WorkflowTask(id="a", task_class="a", run_ms=-1)], "negative"),
        ([WorkflowTask(id="a", task_class="a", run_ms=1)] * 2, "twice"),
        ([], "no task"),
    ],
)
def test_a_workflow_that_cannot_be_is_refused_by_name(tasks, says):
    with pytest.raises(WorkflowError, match=says):
        workflow.ordered("w", tasks)


def test_a_file_with_a_negative_or_missing_runtime_is_refused():
    one = {"id": "a", "name": "a", "parents": [], "children": []}
    for runtime, says in ((-1, "not negative"), (float("nan"), "finite"), (None, "no runtimeInSeconds")):
        said = {
            "workflow": {
                "specification": {"tasks": [one]},
                "execution": {"tasks": [{"id": "a", "runtimeInSeconds": runtime}]},
            }
        }
        with pytest.raises(WorkflowError, match=says):
            workflow.parse("w", said)
    with pytest.raises(WorkflowError, match="WfFormat"):
        workflow.parse("w", {})


def test_a_trace_that_cannot_be_used_is_refused_by_name(tmp_path):
    with pytest.raises(TraceError, match="ends after"):
        simulate([job(flow(("a", 1, ())), 60 * 100)], [spot(1), on_demand()], plan, SETTING)
    with pytest.raises(TraceError, match="unequal steps"):
        trace.step_of("t", [0, 600, 1200, 1500])
    bad = tmp_path / "zone.json"
    bad.write_text('{"zone": "z", "gap_seconds": 60, "available": [1], "spot_usd_per_hour": [NaN]}')
    with pytest.raises(TraceError, match="finite"):
        trace.read(bad)
    good = '"zone": "z", "available": [1, 0, 1], "spot_usd_per_hour": [1, 1, 1]'
    for wrong, says in (
        ('"gap_seconds": 60, "timestamps": [0, 60, 180]', "not 60 s apart"),
        ('"gap_seconds": 60, "timestamps": [0, 60]', "not 60 s apart"),
        ('"gap_seconds": "a minute"', "'a minute' is no number"),
        ('"gap_seconds": 0', "gap_seconds is 0"),
    ):
        bad.write_text(f"{{{good}, {wrong}}}")
        with pytest.raises(TraceError, match=says):
            trace.read(bad)
