"""One contract for the embedded graph and a real Neo4j."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from agent.errors import GraphAwayError, GraphError, GraphRefusedError
from agent.graph import bolt
from agent.graph.bolt import Address, Graph
from flows.steps import mapping as m
from flows.steps.graph import statement
from harness.processes import free_port

pytestmark = pytest.mark.real

MAPPING = m.parse(
    {
        "nodes": {
            "Town": {"from": "towns", "key": "code", "properties": ["name"]},
            "Line": {"from": "lines", "key": {"id": ["a", "b"]}},
        },
        "relations": {
            "STOPS_AT": {"from": "lines", "start": {"Line": ["a", "b"]}, "end": {"Town": "a"}, "properties": ["order"]}
        },
    },
    "",
    "of the test",
)


@pytest.fixture
def graph(graph_at):
    with Graph(graph_at) as made:
        made.run("MATCH (n:Town|Line) DETACH DELETE n")
        for node in MAPPING.nodes:
            made.unique(node.name, node.key)
        yield made


def count(graph, what="(n:Town)"):
    return graph.read(f"MATCH {what} RETURN count(*) AS n")[0]["n"]


def test_it_says_what_server_it_is(graph):
    assert "neo4j" in graph.server().lower()


def test_loading_twice_leaves_the_graph_as_loading_once(graph):
    towns, lines = MAPPING.nodes
    for _ in range(2):
        graph.write(statement(towns), [{"_key": f"t{n}", "p": {"name": f"Town {n}"}} for n in range(50)], batch=20)
        graph.write(statement(lines), [{"_key": f"t{n}|t{n + 1}", "p": {}} for n in range(40)])
        graph.write(
            statement(MAPPING.relations[0]),
            [{"_a": f"t{n}|t{n + 1}", "_b": f"t{n}", "p": {"order": n}} for n in range(40)],
        )
    assert (count(graph), count(graph, "(n:Line)"), count(graph, "(:Line)-[r:STOPS_AT]->(:Town)")) == (50, 40, 40)
    assert graph.read("MATCH (l:Line {id: 't3|t4'})-[r:STOPS_AT]->(t) RETURN t.name AS name, r.order AS at") == [
        {"name": "Town 3", "at": 3}
    ]


def test_a_relation_to_nothing_is_not_made(graph):
    graph.write(statement(MAPPING.relations[0]), [{"_a": "no", "_b": "where", "p": {}}])
    assert count(graph, "()-[r:STOPS_AT]->()") == 0


def test_racing_loads_of_the_same_keys_make_one_node_each(graph):
    faults = []

    def load():
        try:
            with Graph(graph.at) as mine:
                for n in range(20):
                    mine.write(statement(MAPPING.nodes[0]), [{"_key": f"k{n % 5}", "p": {"name": str(n)}}])
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert count(graph) == 5


def test_a_batch_that_fails_leaves_nothing(graph):
    with pytest.raises(GraphError):
        graph.write(
            statement(MAPPING.nodes[0]), [{"_key": "good", "p": {}}, {"_key": "bad", "p": {"name": {"a": {"map": 1}}}}]
        )
    assert count(graph) == 0


def test_values_come_back_as_they_went(graph):
    said = {"text": "Zürich 🛤", "whole": 2**40, "real": 0.5, "yes": True, "list": ["a", "b"], "nothing": None}
    graph.write(statement(MAPPING.nodes[0]), [{"_key": "v", "p": said}])
    found = graph.read(
        "MATCH (n:Town {code: 'v'}) RETURN n.text AS text, n.whole AS whole, n.real AS real, n.yes AS yes, n.list "
        "AS list, n.nothing AS nothing"
    )
    assert found == [said]


def test_a_wrong_password_is_named(graph_at):
    with (
        Graph(replace(graph_at, password="wrong-password")) as graph,
        pytest.raises(GraphRefusedError, match="ORC_GRAPH_PASSWORD"),
    ):
        graph.server()


def test_a_server_that_is_not_there_is_tried_again_and_named(monkeypatch):
    monkeypatch.setattr(bolt, "PATIENCE_SECONDS", 1.0)
    at = Address(url=f"bolt://127.0.0.1:{free_port()}", user="neo4j", password="x")
    with Graph(at) as graph:
        with pytest.raises(GraphAwayError, match="cannot be reached"):
            graph.read("RETURN 1")
        assert graph.retries > 2


def test_a_query_that_is_wrong_says_where(graph):
    with pytest.raises(GraphError, match=graph.at.url):
        graph.read("MATCH (n RETURN n")
