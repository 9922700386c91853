"""Shared by all tests: an owner for every process a test starts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.processes import Processes

pytest_plugins = ["tests.servers", "tests.session"]


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Processes of the whole session."""
    owner = Processes(tmp_path_factory.mktemp("logs"))
    yield owner
    owner.end()


@pytest.fixture(scope="module")
def module_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Processes that end with the module: what nobody uses any more takes no CPU from the tests that follow."""
    owner = Processes(tmp_path_factory.mktemp("logs"))
    yield owner
    owner.end()
