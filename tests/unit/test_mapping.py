"""The mapping file: what is refused, and what it says."""

from __future__ import annotations

import pytest

from flows.steps import mapping as m
from harness.processes import ROOT

GOOD = {
    "nodes": {
        "A": {"from": "ta", "key": "id", "properties": {"n": "count", "x": {"mean": "v"}, "y": "w"}},
        "B": {"from": "tb", "key": {"id": ["p", "q"]}},
    },
    "relations": {"R": {"from": "tr", "start": {"A": "a"}, "end": {"B": ["p", "q"]}, "properties": ["z"]}},
}


def made(**changes):
    return m.parse({**GOOD, **changes}, "", "map.yaml")


def test_a_mapping_says_what_it_reads():
    mapping = made()
    a, b = mapping.nodes
    assert (a.key, a.columns, a.plain, a.aggregates, a.distinct) == (
        "id",
        ("id",),
        (("y", "w"),),
        (("n", "count", ""), ("x", "mean", "v")),
        True,
    )
    assert a.wanted == ("id", "w", "v")
    assert (b.key, b.columns) == ("id", ("p", "q"))
    assert mapping.relations[0].wanted == ("a", "p", "q", "z")
    assert mapping.tables() == {"ta", "tb", "tr"}


def test_the_demos_mapping_is_good():
    assert {kind.name for kind in m.read(ROOT / "deployments/nycflights-graph.yaml").nodes} >= {
        "Airport",
        "Plane",
        "Route",
        "Day",
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nodes": {}}, "nodes"),
        ({"nodes": {"A b": {"from": "t", "key": "id"}}}, "'A b' is no name"),
        ({"relations": {"A": GOOD["relations"]["R"]}}, "A names a node and a relation"),
        (
            {"relations": {"R": {"from": "t", "start": {"C": "a"}, "end": {"A": "a"}}}},
            "R.start: there is no node 'C'; the nodes are A, B",
        ),
        (
            {"relations": {"R": {"from": "t", "start": {"A": "a"}, "end": {"B": "p"}}}},
            r"R.end: B is found by 2 columns \(p, q\), here are 1",
        ),
        (
            {"nodes": {"A": {"from": "t", "key": "id", "properties": {"x": {"median": "v"}}}}},
            "A.properties.x: .*one of sum, mean, min, max, first",
        ),
        ({"nodes": {"A": {"from": "t", "key": "id", "properties": ["load"]}}}, "'load' is its key or the provenance"),
        ({"nodes": {"A": {"from": "t", "key": "id", "colour": "red"}}}, "nodes.A.colour: Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, says):
    with pytest.raises(m.MappingError, match=says):
        made(**{**({"relations": {}} if "nodes" in changes else {}), **changes})


def test_a_missing_table_and_a_missing_column_are_named_with_what_there_is():
    mapping = made()
    with pytest.raises(m.MappingError, match=r"B\.from: there is no table 'tb'; the tables are ta, tr"):
        m.require(mapping, {"ta": ["id", "w", "v"], "tr": []})
    with pytest.raises(m.MappingError, match="A: table ta has no column 'v'; it has id, w"):
        m.require(mapping, {"ta": ["id", "w"], "tb": [], "tr": []})


def test_a_file_that_is_not_there_or_no_yaml_is_named(tmp_path):
    with pytest.raises(m.MappingError, match="cannot be read"):
        m.read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("nodes: [")
    with pytest.raises(m.MappingError, match=r"bad.yaml is no YAML"):
        m.read(tmp_path / "bad.yaml")
