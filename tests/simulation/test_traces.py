"""Bad traces are refused by name."""

from __future__ import annotations

import gzip
import json
import math

import pytest

from agent.errors import TraceError
from agent.pools import spot_trace
from agent.simulate.long_job import trace as traces

GOOD = {
    "zone": "us-east-1a_v100_1",
    "gap_seconds": 195,
    "available": [1, 0, 1],
    "spot_usd_per_hour": [1.0, 1.1, 1.2],
    "on_demand_usd_per_hour": 3.06,
}


def test_a_trace_is_read_from_plain_and_gzipped_json(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(GOOD))
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps({**GOOD, "zone": "us-central1-a_h100_16"}).encode()))
    found = traces.read_folder(tmp_path)
    assert {z: t.region for z, t in found.items()} == {"us-east-1a": "us-east-1", "us-central1-a": "us-central1"}
    assert found["us-east-1a"].available.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"spot_usd_per_hour": [1.0, math.nan, 1.2]}, r"spot_usd_per_hour\[1\] is nan"),
        ({"spot_usd_per_hour": [1.0, -1.0, 1.2]}, r"spot_usd_per_hour\[1\] is -1"),
        ({"spot_usd_per_hour": [1.0]}, "samples"),
        ({"available": [1, 2, 0]}, r"available\[1\] is 2"),
        ({"available": [], "spot_usd_per_hour": []}, "samples"),
        ({"on_demand_usd_per_hour": math.inf}, "on_demand_usd_per_hour is inf"),
        ({"gap_seconds": 0}, "gap_seconds is 0"),
        ({"timestamps": [0, 195, 400]}, "not 195 s apart"),
        ({"zone": None, "available": "x"}, "wanted"),
    ],
)
def test_a_wrong_trace_is_refused_with_the_place(wrong, says):
    with pytest.raises(TraceError, match=f"x.json.*{says}"):
        traces.of_zone(spot_trace.of({**GOOD, **wrong}, "x.json"), "x.json")


def test_a_file_that_is_no_trace_is_refused(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(b"nothing")
    with pytest.raises(TraceError, match=r"a\.json\.gz: not a readable trace"):
        traces.read(tmp_path / "a.json.gz")
    with pytest.raises(TraceError, match="no trace"):
        traces.read_folder(tmp_path / "none")


def test_traces_of_unequal_steps_do_not_mix(trace):
    with pytest.raises(TraceError, match="unequal steps"):
        traces.job_of([trace("11"), trace("11", tick_s=600.0)], work_s=1, deadline_s=2)


@pytest.mark.parametrize("bad", [{"work_s": math.nan}, {"deadline_s": 0}, {"startup_s": -1}])
def test_a_job_without_finite_times_is_refused(trace, bad):
    with pytest.raises(TraceError, match="finite"):
        traces.job_of([trace("11")], **{"work_s": 1.0, "deadline_s": 2.0, **bad})


def test_egress_is_read_and_unknown_pairs_pay_the_usual_rate(tmp_path, trace):
    path = tmp_path / "egress.csv"
    path.write_text("from_region,to_region,price_usd_per_gb\nus-east-1,us-west-2,0.01\n")
    job = traces.job_of(
        [trace("1"), trace("1", zone="us-west-2a")], work_s=1, deadline_s=2, egress=traces.read_egress(path)
    )
    assert job.egress_usd == ((0.0, 0.5), (1.0, 0.0))
    path.write_text("from_region,to_region,price_usd_per_gb\nus-east-1,us-west-2,nan\n")
    with pytest.raises(TraceError, match=r"egress\.csv:2"):
        traces.read_egress(path)
