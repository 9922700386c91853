"""A table of four times the workers' memory goes through one governed task."""

from __future__ import annotations

import pytest

from bench.preprocess import measure

pytestmark = pytest.mark.real


def test_a_table_of_four_times_the_workers_memory_goes_through_and_no_worker_is_killed(tmp_path):
    found = measure(tmp_path, limit_mib=512, factor=4, partition_mib=16)
    assert (found["killed"], found["rows right"]) == ("none", "True")
    assert found["peak of a worker, MiB"] < 512
