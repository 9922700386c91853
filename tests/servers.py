"""The servers as fixtures of the session."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.graph.bolt import Address
from harness import servers
from harness.processes import Processes


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """PostgreSQL; skipped where it is not installed."""
    # not below pytest's own folder: it runs as another user, and a second pytest closes that folder to others
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        made = servers.postgres(Path(folder))
        if made is None:
            pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="session")
def neo4j(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Address:
    """Neo4j; skipped where its jars could not be fetched."""
    at = servers.neo4j(processes, tmp_path_factory.mktemp("neo4j"))
    if at is None:
        pytest.skip("no Neo4j here: harness/fetch.sh says why")
    return at


@pytest.fixture(scope="session")
def embedded(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Address:
    """The embedded graph."""
    return servers.embedded(processes, tmp_path_factory.mktemp("embedded"))


@pytest.fixture(params=["embedded", "neo4j"])
def graph_at(request: pytest.FixtureRequest) -> Address:
    """Each graph server in turn."""
    at: Address = request.getfixturevalue(request.param)
    return at
