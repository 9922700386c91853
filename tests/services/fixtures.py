"""The servers as fixtures of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.graph.bolt import Address
from tests.conftest import Processes
from tests.services import servers


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Postgres]:
    """PostgreSQL; skipped where it is not installed."""
    made = servers.postgres(tmp_path_factory.mktemp("postgres"))
    if made is None:
        pytest.skip("no PostgreSQL here (Debian: apt-get install postgresql)")
    yield made
    made.stop()


@pytest.fixture(scope="session")
def neo4j(processes: Processes, tmp_path_factory: pytest.TempPathFactory) -> Address:
    """Neo4j; skipped where its jars could not be fetched."""
    at = servers.neo4j(processes, tmp_path_factory.mktemp("neo4j"))
    if at is None:
        pytest.skip("no Neo4j here: tests/services/fetch.sh says why")
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
