"""Human quantities and needs."""

from __future__ import annotations

import math

import pytest
from dask.utils import parse_bytes, parse_timedelta

from agent import needs
from agent.errors import SettingError, UnitError
from agent.model import units
from agent.model.needs import Needs, from_fields, merged, read
from agent.runner.declared_needs import needs_of, overrides


@pytest.mark.parametrize(("said", "mib"), [("16 GiB", 16384), ("512 MiB", 512), (256, 256), ("1GB", 954)])
def test_memory_is_read_in_mib(said, mib):
    assert units.memory_mib(said) == mib


@pytest.mark.parametrize(
    ("said", "ms"), [("20 min", 1_200_000), ("90s", 90_000), (1.5, 1500), ("1 h", 3_600_000), ("250ms", 250)]
)
def test_durations_are_read_in_ms(said, ms):
    assert units.duration_ms(said) == ms


@pytest.mark.parametrize(("said", "micros"), [("$1.50", 1_500_000), (0.1, 100_000), ("1,000", 1_000_000_000), (0, 0)])
def test_money_is_read_in_micro_dollars(said, micros):
    assert units.usd_micros(said) == micros


_NUMBERS = ("1", "2.5", "16", "1.5", "1e3", "2.", "1000000")


@pytest.mark.parametrize(
    "unit", ["", "B", "k", "kB", "KB", "KiB", "Ki", "M", "MB", "MiB", "GB", "GiB", "gib", "Ti", "PiB"]
)
def test_memory_is_read_as_dask_reads_it(unit):
    for said in (f"{number}{space}{unit}" for number in _NUMBERS for space in ("", " ")):
        count = parse_bytes(said)
        assert units.memory_mib(said) == math.ceil(count / units.MIB), said


@pytest.mark.parametrize(
    "unit",
    ["", "ns", "us", "ms", "s", "second", "seconds", "m", "minute", "MINUTES", "h", "hours", "d", "days", "w", "week"],
)
def test_durations_are_read_as_dask_reads_them(unit):
    for said in (f"{number}{space}{unit}" for number in _NUMBERS for space in ("", " ")):
        assert units.duration_ms(said) == round(parse_timedelta(said) * 1000), said


def test_half_a_second_may_begin_with_its_point():
    assert units.duration_ms(".5s") == 500  # Dask reads one and a half


@pytest.mark.parametrize("bad", ["5 foos", "MiB", "1 2 GiB x", "1e400 GiB", "GiB 5", "٣ GiB"])
def test_text_that_is_no_quantity_is_refused(bad):
    with pytest.raises(UnitError, match="memory"):
        units.memory_mib(bad)
    with pytest.raises(UnitError, match="duration"):
        units.duration_ms(bad.replace("GiB", "min"))


@pytest.mark.parametrize("bad", ["many", "", "-1 GiB", "0 MiB", float("nan"), None, True])
def test_memory_that_cannot_be_is_refused(bad):
    with pytest.raises(UnitError, match="memory"):
        units.memory_mib(bad)


@pytest.mark.parametrize("bad", ["soon", -1, float("inf"), float("nan"), True])
def test_durations_that_cannot_be_are_refused(bad):
    with pytest.raises(UnitError, match="duration"):
        units.duration_ms(bad)


@pytest.mark.parametrize("bad", ["-1", "NaN", "inf", "a dollar", True])
def test_money_that_cannot_be_is_refused(bad):
    with pytest.raises(UnitError, match="amount"):
        units.usd_micros(bad)


def test_needs_are_read_in_human_units():
    assert from_fields(
        read({"cpus": 2, "memory": "16 GiB", "runtime": "20 min", "gpu": "helps", "labels": {"pii": True}})
    ) == Needs(cpus=2, memory_mib=16384, runtime_ms=1_200_000, gpu="helps", gpus=1, labels=(("pii", "true"),))


def test_not_said_to_be_interruptible_means_it_is_not():
    assert not from_fields(read({"cpus": 1})).interruptible


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"memry": "1 GiB"}, "memry"),
        ({"cpus": 0}, "cpus"),
        ({"gpu": "maybe"}, "required, helps, no"),
        ({"interruptible": "yes"}, "interruptible"),
        ({"priority": "high"}, "critical, normal, batch"),
        ({"gpu": "no", "gpus": 1}, "gpus"),
        ({"runtime": 0}, "runtime"),
        ({"labels": "pii"}, "labels"),
    ],
)
def test_a_wrong_need_is_refused_by_name(said, names):
    with pytest.raises(SettingError, match=names):
        read(said)


def test_the_call_wins_over_the_task_and_the_task_over_the_flow():
    assert merged({"cpus": 1, "team": "a"}, {"cpus": 2}, {"cpus": 3}) == {"cpus": 3, "team": "a"}


def test_labels_of_flow_and_task_add_up():
    assert merged({"labels": (("a", "1"), ("b", "1"))}, {"labels": (("b", "2"),)})["labels"] == (("a", "1"), ("b", "2"))


def test_needs_may_stand_above_or_below_the_task_decorator():
    from prefect import task

    @needs(cpus=2)
    @task
    def above():
        """A task."""

    @task
    @needs(cpus=2)
    def below():
        """A task."""

    assert needs_of(above) == needs_of(below) == {"cpus": 2}
    assert needs_of(above.with_options(name="other")) == {"cpus": 2}


def test_needs_around_a_call_hold_for_that_call():
    with needs(cpus=2), needs(memory="1 GiB"):
        assert overrides() == {"cpus": 2, "memory_mib": 1024}
    assert overrides() == {}
