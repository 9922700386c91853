"""Counts, packing, statistics, settings."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun

from agent import needs
from agent.errors import SettingError
from agent.model.capacity import FreeCapacity, Load, PoolSpec, WorkerCapacity
from agent.model.pools import Selector
from agent.report.pack import OnDemand, packed
from agent.runner import flow_run as runs
from agent.scheduler.unrunnable import Unrunnable
from agent.settings import load
from agent.state.statistics import Statistics

HOUR = 3_600_000


def test_a_worker_takes_what_fits_beside_what_is_bound():
    counts = WorkerCapacity(address="a", name="w", pool="p", slots=4, cpus=4, memory_mib=8000, gpus=1)
    counts.bound["big"] = Load(cpus=1, memory_mib=6000, gpus=1)
    assert counts.fits(Load(cpus=1, memory_mib=2000, gpus=0), 0)
    assert not counts.fits(Load(cpus=1, memory_mib=2001, gpus=0), 0)
    assert not counts.fits(Load(cpus=1, memory_mib=1, gpus=1), 0)
    assert not counts.fits(Load(cpus=4, memory_mib=1, gpus=0), 0)


def test_a_parent_that_waits_lends_its_place_and_its_memory_only_where_nothing_else_runs():
    counts = WorkerCapacity(address="a", name="w", pool="p", slots=2, cpus=2, memory_mib=8000, gpus=0)
    counts.bound["parent"] = Load(cpus=2, memory_mib=6000, gpus=0)
    assert not counts.fits(Load(cpus=1, memory_mib=1000, gpus=0), 0)
    counts.seceded.add("parent")
    assert counts.fits(Load(cpus=1, memory_mib=7000, gpus=0), 0)  # or the two would wait for each other
    counts.bound["child"] = Load(cpus=1, memory_mib=1000, gpus=0)
    assert counts.fits(Load(cpus=1, memory_mib=1000, gpus=0), 0)
    assert not counts.fits(Load(cpus=1, memory_mib=3000, gpus=0), 0)


def test_work_sent_ahead_counts_only_as_much_as_can_run_at_once():
    counts = WorkerCapacity(address="a", name="w", pool="p", slots=2, cpus=2, memory_mib=4000, gpus=0)
    counts.bound.update({n: Load(cpus=1, memory_mib=2000, gpus=0) for n in range(6)})
    assert counts.free() == FreeCapacity(-4, 2, 0, 0, 0)
    assert counts.fits(Load(cpus=1, memory_mib=2000, gpus=0), ahead=3)
    assert not counts.fits(Load(cpus=1, memory_mib=2000, gpus=0), ahead=2)


def test_a_size_is_read_from_the_governors_words():
    said = {
        "name": "p",
        "selector": {"name": "p-*", "host": None, "resources": [["GPU", 1]], "nthreads": None},
        "cpus": 1,
        "memory_mib": 2,
        "gpus": 0,
    }
    assert PoolSpec.read(said).selector == Selector(name="p-*", resources=(("GPU", 1.0),))


class _Ts:
    def __init__(self, held):
        self.resource_restrictions = {"orc-hold": 1} if held else None


def test_held_tasks_are_hidden_from_scans_and_still_counted():
    held, other = _Ts(True), _Ts(False)
    table = Unrunnable({held: 1.0, other: 2.0})
    assert (list(table), len(table), held in table) == ([other], 2, True)
    assert list(table.items()) == [(other, 2.0)]
    table.reveal(held)
    assert set(table) == {held, other}
    table.pop(held)
    table.pop(held, None)
    assert (list(table), len(table)) == ([other], 1)


def test_packing_reuses_a_worker_within_its_idle_time():
    on = OnDemand(pool="od", usd_micros_per_hour=3_600_000, slots=1, startup_ms=1000, idle_ms=2000, min_billing_ms=0)
    assert packed([(0, 1000), (2500, 1000)], on) == (1000 + 3500 + 2000, 1)
    assert packed([(0, 1000), (3500, 1000)], on) == (2 * (1000 + 1000 + 2000), 2)
    assert packed([(0, 1000), (500, 1000)], on)[1] == 2


def test_packing_pays_the_minimum_billing():
    on = OnDemand(pool="od", usd_micros_per_hour=3_600_000, slots=1, startup_ms=0, idle_ms=0, min_billing_ms=60_000)
    assert packed([(0, 1000)], on) == (60_000, 1)


def test_a_class_that_changes_is_learned_anew():
    statistics = Statistics()
    for ms in [100] * 400 + [10_000] * 800:
        statistics.record_runtime("c", "p", 0, ms, "")
    (statistic,) = [s for s in statistics.of_classes({"c"}) if s.pool == "p"]
    assert abs(statistic.log_mean - 9.21) < 0.2
    assert statistic.n <= 200


def test_a_tail_is_the_time_from_a_class_to_the_end_of_its_root_run():
    statistics = Statistics()
    statistics.record_runtime("first", "p", 1000, 10, "r")
    statistics.record_runtime("last", "p", 9000, 10, "r")
    statistics.close_run("r")
    assert (statistics.tails["first"], statistics.tails["last"]) == (8000, 0)


def test_interruptions_move_the_declared_hazard():
    statistics = Statistics()
    assert statistics.hazard("spot", 500) == 0.5
    statistics.record_worker_life("spot", 2 * HOUR, interrupted=True)
    assert statistics.hazard("spot", 500) == 0.5
    statistics.record_worker_life("spot", 4 * HOUR, interrupted=False)
    assert statistics.hazard("spot", 500) == 0.25
    # workers that still run were watched too
    assert statistics.hazard("spot", 500, running_hours=8.0) == 0.125


def test_the_interval_of_losses_is_as_wide_as_lives_are_uneven():
    even, uneven = Statistics(), Statistics()
    for n in range(40):
        even.record_worker_life("spot", HOUR, interrupted=True)
        uneven.record_worker_life("spot", HOUR // 10 if n % 10 else 9 * HOUR + HOUR // 10, interrupted=True)
    assert even.hazard("spot", 1000) == pytest.approx(1) == uneven.hazard("spot", 1000)
    (low, high), (lower, higher) = (made.losses("spot", made.hazard("spot", 1000), 24, 0.9) for made in (even, uneven))
    # nine lives of six minutes and one of nine hours: counts vary several times as much
    assert lower < low < 24 < high < higher
    assert Statistics().losses("spot", 0.0, 24, 0.9) == (0, 0)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MODE", "maybe", "ORC_MODE='maybe'"),
        ("SCHEDULER", "localhost:8786", "tcp://HOST:PORT"),
        ("DELAY_USD_PER_HOUR", "-1", "ORC_DELAY_USD_PER_HOUR"),
        ("PREFECT_PORT", "70000", "ORC_PREFECT_PORT"),
        ("AHEAD", "soon", "ORC_AHEAD"),
        ("DEADLINE_QUANTILE_SIGMAS", "nan", "ORC_DEADLINE_QUANTILE_SIGMAS"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(monkeypatch, name, value, says):
    monkeypatch.setenv(f"ORC_{name}", value)
    with pytest.raises(SettingError, match=says):
        load()


def test_a_tag_says_the_deadline_in_place_of_the_flow():
    @needs(deadline="30 min")
    @flow
    def nightly():
        pass

    def deadline(*tags):
        at = datetime(2030, 1, 1, tzinfo=UTC)
        run = FlowRun(flow_id=uuid4(), name="one", tags=list(tags), expected_start_time=at)
        root, found = runs._found(None, nightly, run)
        assert root == str(run.id)
        return found - round(at.timestamp() * 1000)

    assert deadline() == 30 * 60_000
    assert deadline("team:ml", "deadline: 3 min") == 3 * 60_000
    with pytest.raises(SettingError, match="flow run 'one': tag deadline:soon: duration 'soon' cannot be read"):
        deadline("deadline:soon")
