"""What a graph server's errors are called."""

from __future__ import annotations

import pytest
from neo4j.exceptions import Neo4jError
from pydantic import ValidationError

from agent.errors import GraphAwayError, GraphClashError, GraphError, GraphFullError, GraphReadOnlyError
from agent.graph.bolt import Address, _translated, address, quoted
from agent.settings import Settings

AT = Address(url="bolt://there:7687", user="neo4j", password="secret")


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (
            "Neo.ClientError.General.ForbiddenOnReadOnlyDatabase",
            "This is a read only Neo4j instance",
            GraphReadOnlyError,
        ),
        ("Neo.ClientError.Cluster.NotALeader", "No write operations are allowed", GraphReadOnlyError),
        ("Neo.DatabaseError.Transaction.TransactionCommitFailed", "No space left on device", GraphFullError),
        ("Neo.TransientError.General.OutOfMemoryError", "There is not enough memory", GraphFullError),
        ("Neo.ClientError.Schema.ConstraintValidationFailed", "Node already exists", GraphClashError),
        ("Neo.TransientError.Transaction.DeadlockDetected", "can't acquire", GraphClashError),
        ("Neo.TransientError.General.DatabaseUnavailable", "The database is not currently available", GraphAwayError),
        ("Neo.ClientError.Database.DatabaseNotFound", "Graph not found: x", GraphError),
        ("Neo.ClientError.Statement.SyntaxError", "Invalid input", GraphError),
    ],
)
def test_a_servers_error_gets_its_name_and_keeps_its_words(code, message, kind):
    error = _translated(AT, Neo4jError._hydrate_neo4j(code=code, message=message))
    assert type(error) is kind
    assert message in str(error)
    assert "bolt://there:7687" in str(error)


def test_a_password_is_not_shown():
    assert "secret" not in repr(AT)


def test_there_is_no_graph_when_it_is_off_or_none_runs(tmp_path):
    with pytest.raises(GraphAwayError, match="ORC_GRAPH_URL=off"):
        address(Settings(home=tmp_path, graph={"url": "off"}))
    with pytest.raises(GraphAwayError, match="orc up"):
        address(Settings(home=tmp_path))


def test_a_neo4j_is_reached_by_its_settings(tmp_path):
    at = address(
        Settings(home=tmp_path, graph={"url": "neo4j://n:7687", "user": "u", "password": "p", "database": "d"})
    )
    assert at == Address(url="neo4j://n:7687", user="u", password="p", database="d")


@pytest.mark.parametrize(("name", "value"), [("url", "http://n:7474"), ("heap", "lots")])
def test_a_wrong_graph_setting_is_refused(name, value):
    with pytest.raises(ValidationError):
        Settings(graph={name: value})


def test_names_are_quoted_for_cypher():
    assert quoted("a`b") == "`a``b`"
