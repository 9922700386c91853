"""Which versions run here: in `make support`, the lowest that pyproject claims."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from agent.scheduler import compatibility
from tests.support import lowest


def test_the_lowest_claims_are_in_the_requirements():
    said = lowest.requirements().splitlines()
    assert set(lowest.claimed()) == set(lowest.OF)
    assert all(f"{name}=={at}" in said for name, at in lowest.claimed().items())


def test_the_lowest_and_the_locked_distributed_are_governed():
    locked = next(
        x for x in (lowest.ROOT / "requirements.txt").read_text().splitlines() if x.startswith("distributed==")
    )
    for at in (lowest.claimed()["distributed"], locked.partition("==")[2]):
        assert ".".join(at.split(".")[:2]) in compatibility.TESTED


def test_the_lowest_versions_run():
    if ".support" not in Path(sys.prefix).parts:
        pytest.skip("the lowest versions are in an environment of their own: make support")
    assert {name: version(name) for name in lowest.OF} == lowest.claimed()
