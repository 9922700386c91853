"""pools.yaml, spot traces, selectors, prices."""

from __future__ import annotations

import json

import pytest

from agent.errors import PoolError, TraceError
from agent.model.pools import PriceStep, Selector, pool_of
from agent.pools import declared, spot_trace
from harness.processes import ROOT
from tests.values import HOUR, pool

GOOD = "market: on-demand, worker: {cpus: 2, memory: 4 GiB}, price: 0.1, workers: {max: 2}"


def read(tmp_path, text):
    file = tmp_path / "pools.yaml"
    file.write_text(text)
    return declared.read(file)


def test_the_shipped_pools_and_traces_are_good():
    said = declared.read(ROOT / "deployments/pools.yaml")
    assert [p.kind for p in said.pools] == ["spot", "on-demand", "gpu"]
    assert said.spot_traces["spot"].available[0]


@pytest.mark.parametrize(
    ("pool", "says"),
    [
        ("market: on-demand, worker: {cpus: 2, memory: 4 GiB}, workers: {max: 2}", "pool 'p'.*price is missing"),
        (
            "market: on-demand, worker: {cpus: 2, memory: 4 GiB}, price: -1, workers: {max: 2}",
            "pool 'p'.*price.*not negative",
        ),
        (
            "market: on-demand, worker: {cpus: 2, memory: 4 GiB}, price: .nan, workers: {max: 2}",
            "pool 'p'.*price.*finite",
        ),
        (
            "market: cheap, worker: {cpus: 2, memory: 4 GiB}, price: 1, workers: {max: 2}",
            "pool 'p'.*market.*'spot' or 'on-demand'",
        ),
        ("market: on-demand, worker: {cpus: 0, memory: 4 GiB}, price: 1, workers: {max: 2}", "pool 'p'.*worker.cpus"),
        (
            "market: on-demand, worker: {cpus: 2, memory: lots}, price: 1, workers: {max: 2}",
            "pool 'p'.*worker.memory.*lots",
        ),
        (
            "market: on-demand, worker: {cpus: 2, memory: 4 GiB}, price: 1, workers: {min: 3, max: 2}",
            "workers.min 3 is above",
        ),
        (GOOD + ", interruptions_per_hour: 1", "an on-demand pool is not interrupted"),
        (GOOD + ", colour: red", "pool 'p'.*colour.*unknown field"),
        (
            "market: spot, worker: {cpus: 2, memory: 4 GiB}, workers: {max: 2}, provider: local, spot_trace: none.json",
            "pool 'p'.*spot trace.*none.json cannot be read",
        ),
    ],
)
def test_a_wrong_pool_is_refused_with_file_pool_and_field(tmp_path, pool, says):
    with pytest.raises(PoolError, match=says):
        read(tmp_path, f"pools:\n  p: {{{pool}}}\n")


def test_pools_whose_workers_would_be_taken_for_another_pools_are_refused(tmp_path):
    launched = GOOD + ", provider: local"
    with pytest.raises(PoolError, match="pools 'a' and 'a-big' overlap: worker 'a-big-0' would count to 'a'"):
        read(tmp_path, f"pools:\n  a: {{{launched}}}\n  a-big: {{{launched}}}\n")
    # the other way round each counts to its own
    assert len(read(tmp_path, f"pools:\n  a-big: {{{launched}}}\n  a: {{{launched}}}\n").pools) == 2
    same = GOOD + ", selector: {name: 'w-*'}"
    with pytest.raises(PoolError, match="pools 'a' and 'b' select the same workers"):
        read(tmp_path, f"pools:\n  a: {{{same}}}\n  b: {{{same}}}\n")


def test_a_file_that_is_not_yaml_is_refused_with_its_line(tmp_path):
    with pytest.raises(PoolError, match=r"pools.yaml:2: not YAML"):
        read(tmp_path, "pools: {\n  p: ]\n")


def test_nobody_may_call_a_pool_default(tmp_path):
    with pytest.raises(PoolError, match="'default'"):
        read(tmp_path, f"pools:\n  default: {{{GOOD}}}\n")


def test_price_steps_hold_from_their_instant_on():
    steps = (PriceStep(since_ms=0, usd_micros_per_hour=100), PriceStep(since_ms=HOUR, usd_micros_per_hour=300))
    p = pool(price=steps)
    assert (p.price_at(0), p.price_at(HOUR), p.price_between(0, 2 * HOUR)) == (100, 300, 300)
    assert p.cost(0, 2 * HOUR) == 400


def test_a_lease_costs_at_least_its_minimum_billing():
    assert pool(usd=0.36, min_billing_ms=60_000).billed(0, 1000) == pool(usd=0.36).billed(0, 60_000) == 6000


def test_a_worker_belongs_to_the_first_pool_that_selects_it_else_to_default():
    pools = (
        ("big", Selector(nthreads=8)),
        ("gpu", Selector(resources=(("GPU", 1.0),))),
        ("spot", Selector(name="spot-*")),
    )
    seen = {"host": "h", "resources": {}, "nthreads": 1}
    assert pool_of(pools, name="spot-1", **seen) == "spot"
    assert pool_of(pools, name="x", host="h", resources={"GPU": 2}, nthreads=1) == "gpu"
    assert pool_of(pools, name="x", **seen) == "default"
    assert not Selector().matches(name="x", **seen)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"available": [1]}, "available"),
        ({"available": [0, 0, 0]}, "0 at every sample"),
        ({"spot_usd_per_hour": [1, 2]}, "one of each"),
        ({"play": {"seconds_per_sample": 0}}, "play.seconds_per_sample"),
        ({"spot_usd_per_hour": [1, -2, 1]}, r"spot_usd_per_hour\[1\]"),
        ({"play": {"spead": 2}}, "play.spead"),
    ],
)
def test_a_wrong_spot_trace_is_refused_by_field(tmp_path, change, says):
    file = tmp_path / "trace.json"
    file.write_text(
        json.dumps({"zone": "z", "gap_seconds": 60, "available": [1, 0, 1], "spot_usd_per_hour": [1, 1, 1], **change})
    )
    with pytest.raises(TraceError, match=says):
        spot_trace.played(file)


def test_a_trace_is_played_sample_by_sample_and_again_from_its_start():
    found = {"zone": "z", "gap_seconds": 120, "available": [1, 0], "spot_usd_per_hour": [0.1, 0.2]}
    trace = spot_trace.of({**found, "play": {"seconds_per_sample": 2}}, "here")
    assert trace.speed == 60
    assert [trace.at(t) for t in (0, 1.9, 2, 3.9, 4)] == [
        (True, 100_000),
        (True, 100_000),
        (False, 200_000),
        (False, 200_000),
        (True, 100_000),
    ]
