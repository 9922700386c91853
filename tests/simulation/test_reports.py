"""What a user gets: a page, a backtest over a ledger, a shadow report."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from agent.errors import LedgerError, SettingError, SimulationError
from agent.governor.rulebook import made as ready
from agent.ledger.ledger import Ledger
from agent.ledger.snapshots import split
from agent.model import codec
from agent.model.needs import Needs
from agent.model.records import Decided, Ended, Entry, FlowRun, Placed
from agent.planner.plan import plan
from agent.simulate import page
from agent.simulate.backtest import backtest, interval
from agent.simulate.what_if import CURVE, POLICIES, simulate_workflow
from agent.simulate.workflows.setting import SimulationSetting
from agent.simulate.workflows.simulation import simulate
from rules.schema import load
from tests.simulation.worlds import flow, job, on_demand, spot
from tests.values import HOUR, group, pool, snapshot, state

SPOT, SAFE = pool("spot", "spot", 0.36, interruptions_per_1000_hours=1000), pool(usd=3.60)
RULES = """
rules:
  - name: no-spot-for-fits
    reason: fits are not to be taken away
    when: {task_class: {is: fit}}
    then: {forbid: {market: spot}}
"""


def test_the_page_needs_nothing_from_elsewhere_and_names_every_policy():
    workflow = flow(("a", 20, ()), ("b", 30, ("a",)), ("<c>", 30, ("a",)))
    made = simulate_workflow(
        workflow, [spot(0, 2, 2), on_demand()], 3 * HOUR, ["orc", "on-demand"], SimulationSetting()
    )
    text = page.what_if(made)
    assert not re.search(r"(src|href)=|https?://(?!www.w3.org)", text)
    assert "<c>" not in text
    for words in ("orc", "on-demand", "Cost of orc against the deadline", "<svg"):
        assert words in text
    costs = [usd for until, usd, missed in made.curve if not missed]
    assert costs
    assert min(costs) == costs[-1]


def test_an_unknown_policy_and_pools_without_on_demand_are_refused():
    workflow = flow(("a", 20, ()))
    with pytest.raises(SettingError, match="no policy 'x'"):
        simulate_workflow(workflow, [on_demand()], None, ["x"], SimulationSetting())
    with pytest.raises(SettingError, match="no pool is on demand"):
        simulate_workflow(workflow, [spot(1)], None, ["orc"], SimulationSetting())


def test_every_policy_ends_also_without_a_spot_pool_and_each_is_told_before_it_begins():
    told = []
    workflow = flow(("a", 20, ()), ("b", 30, ("a",)))
    made = simulate_workflow(workflow, [on_demand()], 3 * HOUR, list(POLICIES), SimulationSetting(), told.append)
    assert len(told) == len(POLICIES) + len(CURVE)
    assert told[0] == f"1 of {len(told)}: orc, deadline 3 h 00 min"
    ended = {name for name, result in made.results.items() if result.ends}
    # those that take nothing but spot wait for it in vain, and are shown so
    assert set(POLICIES) - ended == {"spot-retries", "flyte"}
    for row in page.table(made):
        assert (row[3] == "never ended") == (row[0] not in ended)


def test_a_job_that_arrives_after_days_is_waited_for():
    late = job(flow(("a", 20, ())), None, at_minutes=3 * 24 * 60)
    assert simulate([late], [on_demand()], plan, SimulationSetting()).ends


def test_a_task_that_fits_no_pool_is_refused_with_the_nearest():
    big = flow(("a", 20, ()))
    big = replace(big, tasks=tuple(replace(t, needs=Needs(memory_mib=10**6)) for t in big.tasks))
    with pytest.raises(SimulationError, match="cannot run in any pool; nearest is on-demand"):
        simulate_workflow(big, [on_demand()], None, ["orc"], SimulationSetting())


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db", "tcp://s")
    made.acquire_lease("me", 1000, 10_000)
    yield made
    made.close()


def fill(ledger, mode="govern"):
    """A round that binds two classes of two tasks each to spot, and their ends after half an hour."""
    begin = Entry(kind="start", at_ms=1000, says={"pools": [codec.encode(p).decode() for p in (SPOT, SAFE)]})
    ledger.append(begin)
    needs = Needs(interruptible=True, runtime_ms=HOUR // 2)
    groups = tuple(group(name, 2, needs, task_class=name, name=name, flow_run="f1") for name in ("fit", "score"))
    shot = snapshot(state(SPOT, 4), state(SAFE), groups=groups, now_ms=2000)
    made = plan(shot)
    assert {bind.pool for bind in made.binds} == {"spot"}
    head, parts = split(shot)
    numbered = list(enumerate(made.decisions, 1))
    ledger.append(
        Entry(
            kind="round", at_ms=2000, mode=mode, says={"head": head, "plan": ""}, parts=parts,
            runs=[FlowRun(no=1, flow_run="f1", root_run="f1", flow="train")],
            decisions=[Decided(id=n, run=1, decision=d) for n, d in numbered],
            placements=[Placed(id=10 * n + k, decision=n, key=f"k{n}{k}") for n, _ in numbered for k in range(2)],
        )
    )  # fmt: skip
    ends = [
        Ended(placement=10 * n + k, result="done", start_ms=3000, run_ms=HOUR // 2, usd_micros=180_000)
        for n, _ in numbered
        for k in range(2)
    ]
    ledger.append(Entry(kind="round", at_ms=2 * HOUR, mode=mode, outcomes=ends))


def test_a_backtest_counts_exactly_what_the_rules_forbid_and_models_what_it_costs(ledger, tmp_path):
    fill(ledger)
    (tmp_path / "new.yaml").write_text(RULES)
    found = load([tmp_path / "new.yaml"])
    made = backtest(ledger, ready(found).judge, found.facts, 0)
    assert made.executions == 4
    assert [(f.rule, f.task_class, f.pool, f.instead, f.executions) for f in made.forbidden] == [
        ("no-spot-for-fits", "fit", "spot", "on-demand", 2)
    ]
    # two half hours at $3.60 instead of $0.36
    assert made.usd_micros.value == 2 * (1_800_000 - 180_000)
    assert made.usd_micros.low <= made.usd_micros.value <= made.usd_micros.high
    assert made.ms.value == 0


def test_a_backtest_of_a_time_without_executions_says_so(ledger):
    with pytest.raises(LedgerError, match="earlier --since"):
        backtest(ledger, lambda facts: (), frozenset(), 0)


def test_an_interval_narrows_to_its_value_when_all_are_alike():
    assert interval([2.0] * 5) == interval([2.0] * 5)
    assert (interval([2.0] * 5).low, interval([2.0] * 5).high) == (10.0, 10.0)
    assert interval([0.0, 10.0] * 5).low < 50 < interval([0.0, 10.0] * 5).high
