"""The graph of the run, projected from a ledger onto each graph server."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from agent.errors import GraphAwayError
from agent.graph import bolt
from agent.graph.bolt import Graph
from agent.ledger.ledger import Ledger
from agent.mind.projection import LABELS
from agent.mind.run_graph import RunGraph
from agent.model.leases import Lease
from agent.model.records import Decided, Ended, Entry, FlowRun, Placed
from agent.planner.plan import plan
from agent.settings import Settings
from harness.processes import ROOT, free_port
from tests.values import group, pool, snapshot, state

pytestmark = pytest.mark.real


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db", "tcp://drawn")
    made.acquire_lease("me", 1000, 10_000)
    yield made
    made.close()


@pytest.fixture
def run_graph(graph_at, ledger, tmp_path):
    with Graph(graph_at) as graph:
        for label in (*LABELS, "OrcCursor"):
            graph.run(f"MATCH (n:{label}) DETACH DELETE n")
    settings = Settings(
        home=tmp_path,
        graph={name: getattr(graph_at, name) for name in ("url", "user", "password", "database")},
    )
    made = RunGraph(ledger, settings)
    yield made
    made._graph and made._graph.close()


def lease(**changes):
    values = {
        "id": 1,
        "pool": "spot",
        "kind": "spot",
        "worker": "spot-0",
        "asked_ms": 900,
        "granted_ms": 950,
        "cause": "tasks wait",
        "price": "{}",
    }
    return Lease(**{**values, **changes})


def fill(ledger):
    """A run of two tasks, the second after the first, which was preempted once."""
    shot = snapshot(
        state(pool("spot", "spot", 0.1), 1),
        state(pool("gpu", gpus=1, gpu_model="V100")),
        groups=(group(flow_run="child"),),
    )
    decided = [Decided(id=1, run=1, decision=plan(shot).decisions[0])]
    ledger.append(
        Entry(
            kind="round",
            at_ms=1000,
            runs=[FlowRun(no=1, flow_run="child", root_run="root", flow="train", team="ml")],
            decisions=decided,
            placements=[Placed(id=1, decision=1, key="first-" + "a" * 32)],
            leases=[lease()],
        )
    )
    ledger.append(
        Entry(
            kind="round",
            at_ms=2000,
            outcomes=[Ended(placement=1, result="preempted", lease=1, start_ms=1001, run_ms=500)],
            placements=[Placed(id=2, decision=1, key="first-" + "a" * 32)],
        )
    )
    made = (("reads", "dataset", "s3://in"), ("writes", "model", "s3://model"))
    ledger.append(
        Entry(
            kind="round",
            at_ms=3000,
            outcomes=[Ended(placement=2, result="done", lease=1, start_ms=2001, run_ms=700, lineage=made)],
            placements=[Placed(id=3, decision=1, key="second-" + "b" * 32, upstream="2,+7")],
            leases=[lease(ended_ms=3000, cause="drained", usd_micros=77)],
        )
    )
    ledger.append(
        Entry(kind="round", at_ms=4000, outcomes=[Ended(placement=3, result="done", start_ms=3001, run_ms=10)])
    )


def dump(run_graph):
    """Every node and relation of the run graph, without what servers number."""
    graph = run_graph._opened()
    nodes = [
        (label, row["id"], sorted((k, v) for k, v in row["p"].items() if v is not None))
        for label in LABELS
        for row in graph.read(f"MATCH (n:{label}) RETURN n.id AS id, properties(n) AS p")
    ]
    asked = (
        "MATCH (a)-[r]->(b) WHERE a.id IS NOT NULL AND b.id IS NOT NULL RETURN a.id AS a, type(r) AS t, b.id AS b, "
        "properties(r) AS p"
    )
    relations = [
        (row["a"], row["t"], row["b"], sorted((k, v) for k, v in row["p"].items() if v is not None))
        for row in graph.read(asked)
        if row["t"].startswith("ORC_")
    ]
    return sorted(nodes, key=str), sorted(relations, key=str)


def test_it_says_what_ran_where_and_why_with_lineage(run_graph, ledger):
    fill(ledger)
    run_graph.take_in()
    graph = run_graph._opened()
    rows = graph.read(
        """MATCH (m:OrcAsset {kind: 'model'})<-[:ORC_WROTE]-(a:OrcAttempt)-[:ORC_OF_TASK]->(t:OrcTask)
        MATCH (t)-[:ORC_IN_RUN]->(:OrcFlowRun)-[:ORC_OF_FLOW]->(f:OrcFlow)
        MATCH (a)-[:ORC_RAN_ON]->(l:OrcLease)-[:ORC_OF_POOL]->(p:OrcPool) MATCH (a)-[:ORC_DECIDED_BY]->(d:OrcDecision)
        RETURN m.id AS model, t.key AS task, f.id AS flow, l.worker AS worker, p.name AS pool,
               d.reason AS why, a.result AS result"""
    )
    assert [(r["model"], r["flow"], r["worker"], r["pool"], r["result"]) for r in rows] == [
        ("s3://model", "train", "spot-0", "spot", "done")
    ]
    assert "spot" in rows[0]["why"]
    above = graph.read(
        "MATCH (b:OrcAttempt)-[:ORC_AFTER]->(a:OrcAttempt)-[:ORC_READ]->(d:OrcAsset) RETURN b.id AS b, d.id AS d"
    )
    assert above == [{"b": "tcp://drawn/3", "d": "s3://in"}]
    considered = graph.read(
        "MATCH (:OrcDecision)-[c:ORC_CONSIDERED]->(p:OrcPool) RETURN p.name AS pool, c.chosen AS chosen ORDER BY pool"
    )
    assert considered == [{"pool": "gpu", "chosen": False}, {"pool": "spot", "chosen": True}]


def test_rebuilt_from_zero_it_equals_the_live_one(run_graph, ledger):
    fill(ledger)
    for _ in range(2):  # what is told twice is there once
        run_graph.take_in()
        run_graph._opened().run("MATCH (c:OrcCursor) SET c.seq = 1")
    while run_graph.lag():
        run_graph.take_in()
    live = dump(run_graph)
    assert len(live[0]) > 10
    assert run_graph.rebuild() == 4
    assert dump(run_graph) == live


def test_it_catches_up_after_the_graph_was_away_or_emptied(run_graph, ledger, monkeypatch):
    fill(ledger)
    there = run_graph.settings
    away = there.graph.model_copy(update={"url": f"bolt://127.0.0.1:{free_port()}"})
    run_graph.settings = there.model_copy(update={"graph": away})
    with monkeypatch.context() as patch:
        patch.setattr(bolt, "PATIENCE_SECONDS", 1.0)
        with pytest.raises(GraphAwayError):
            run_graph.take_in()
    run_graph.settings = there
    run_graph.take_in()
    assert run_graph.lag() == 0
    whole = dump(run_graph)
    run_graph._opened().run("MATCH (n) WHERE n:OrcAttempt OR n:OrcTask OR n:OrcCursor DETACH DELETE n")
    run_graph.take_in()
    assert dump(run_graph) == whole


def test_two_schedulers_share_a_graph_and_keep_apart(run_graph, ledger, tmp_path):
    fill(ledger)
    run_graph.take_in()
    mine = dump(run_graph)
    other = Ledger(f"sqlite:///{tmp_path}/ledger.db", "tcp://other")
    other.acquire_lease("them", 1000, 10_000)
    fill(other)
    theirs = RunGraph(other, run_graph.settings)
    theirs.take_in()
    assert len(dump(run_graph)[0]) > len(mine[0])
    theirs.rebuild()
    assert [n for n in dump(run_graph)[0] if "tcp://drawn" in n[1]] == [n for n in mine[0] if "tcp://drawn" in n[1]]
    theirs._graph.close()
    other.close()


def test_a_changed_lease_is_told_as_it_stands(run_graph, ledger):
    fill(ledger)
    run_graph.take_in()
    ledger.append(
        Entry(kind="round", at_ms=5000, leases=[replace(lease(), ended_ms=5000, cause="died", usd_micros=99)])
    )
    run_graph.take_in()
    assert run_graph._opened().read("MATCH (l:OrcLease) RETURN l.cause AS cause, l.usd_micros AS usd") == [
        {"cause": "died", "usd": 99}
    ]


def test_the_questions_of_the_documentation_are_answered(run_graph, ledger):
    fill(ledger)
    run_graph.take_in()
    graph = run_graph._opened()
    page = (ROOT / "docs/how-to/ask-the-graph-of-the-run.md").read_text()
    run, model, again, lost, pools, workers = re.findall(r"```cypher\n(.*?)```", page, re.DOTALL)
    assert [(r["task"][:6], r["result"]) for r in graph.read(run, flow_run="child")] == [
        ("first-", "preempted"),
        ("first-", "done"),
        ("second", "done"),
    ]
    assert graph.read(model, address="s3://model") == [{"flow": "train", "run": "child", "made_from": ["s3://in"]}]
    assert graph.read(again, address="s3://in") == [{"made": "s3://model", "kind": "model"}]
    assert [(r["class"], r["taken"]) for r in graph.read(lost)] == [("work", 1)]
    assert {r["pool"]: r["chosen"] for r in graph.read(pools)} == {"gpu": 0, "spot": 1}
    assert [(r["pool"], r["leases"], r["paid"]) for r in graph.read(workers)] == [("spot", 1, 77 / 1_000_000)]
