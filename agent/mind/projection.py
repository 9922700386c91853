"""What the ledger's records say as a graph: values in, rows of Cypher statements out.

The same records give the same graph.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from agent.graph.bolt import quoted
from agent.ledger.reader import Reader
from agent.ledger.unreadable import UNREADABLE, decision_of, why
from agent.ledger.views import DecisionView, OutcomeView, PlacementView
from agent.mind.notices import task_run_of
from agent.model.plans import Decision
from agent.model.records import Record

logger = logging.getLogger("orc.mind")

#: labels of the run graph; every node has `id`, and all but assets and flows `scheduler`
LABELS = (
    "OrcFlow",
    "OrcFlowRun",
    "OrcTask",
    "OrcAttempt",
    "OrcDecision",
    "OrcPool",
    "OrcLease",
    "OrcAsset",
)

Rows = dict[str, dict[str, dict[str, Any]]]


class Projection:
    """Nodes and relations gathered from some records; the last word on a property wins."""

    def __init__(self, scheduler: str) -> None:
        self.scheduler = scheduler
        #: label → id → properties
        self.nodes: Rows = {}
        #: (label, type, label) → (id, id) → properties
        self.relations: dict[tuple[str, str, str], dict[tuple[str, str], dict[str, Any]]] = {}

    def id_of(self, what: object) -> str:
        """An id that no other scheduler's projection has."""
        return f"{self.scheduler}/{what}"

    def node(self, label: str, id: str, **properties: Any) -> str:
        """Add a node, or to one."""
        self.nodes.setdefault(label, {}).setdefault(id, {}).update(properties)
        return id

    def relation(self, start: str, a: str, type: str, end: str, b: str, **properties: Any) -> None:
        """Add a relation, or to one."""
        self.relations.setdefault((start, type, end), {}).setdefault((a, b), {}).update(properties)

    def statements(self) -> Iterable[tuple[str, list[dict[str, Any]]]]:
        """Cypher over `$rows` and its rows, nodes before relations, in a fixed order."""
        for label in LABELS:
            if rows := self.nodes.get(label):
                yield (
                    f"UNWIND $rows AS row MERGE (n:{quoted(label)} {{id: row.id}}) SET n += row.p",
                    [{"id": id, "p": said} for id, said in sorted(rows.items())],
                )
        for (start, type, end), pairs in sorted(self.relations.items()):
            yield (
                f"UNWIND $rows AS row MATCH (a:{quoted(start)} {{id: row.a}}) MATCH (b:{quoted(end)} {{id: row.b}}) "
                f"MERGE (a)-[r:{quoted(type)}]->(b) SET r += row.p",
                [{"a": a, "b": b, "p": said} for (a, b), said in sorted(pairs.items())],
            )


def project(ledger: Reader, records: Iterable[Record]) -> Projection:
    """Everything that some records say: runs, tasks, attempts, decisions, pools, leases, datasets and models."""
    made = Projection(ledger.scheduler)
    for record in records:
        if record.unreadable:
            logger.error(
                "record %d of %s: %s; the graph has its rows only", record.seq, made.scheduler, record.unreadable
            )
        try:
            _project(ledger, made, record)
        except UNREADABLE as error:
            logger.error(
                "record %d of %s cannot be projected whole: %s; the graph goes on",
                record.seq,
                made.scheduler,
                why(error),
            )
    return made


def _project(ledger: Reader, made: Projection, record: Record) -> None:
    for decided in ledger.decisions_of(record.seq):
        _decision(ledger, made, record, decided)
    for placed in ledger.placements_of(record.seq):
        _placed(made, record, placed)
    for ended in ledger.outcomes_of(record.seq):
        _ended(made, ended)
    for lease in ledger.leases(ids=record.body.get("leases", ())):
        pool = made.node("OrcPool", made.id_of(lease.pool), scheduler=made.scheduler, name=lease.pool)
        id = made.node(
            "OrcLease", made.id_of(lease.id), scheduler=made.scheduler, worker=lease.worker, kind=lease.kind,
            asked_ms=lease.asked_ms, granted_ms=lease.granted_ms, ready_ms=lease.ready_ms, ended_ms=lease.ended_ms,
            cause=lease.cause, usd_micros=lease.usd_micros,
        )  # fmt: skip
        made.relation("OrcLease", id, "ORC_OF_POOL", "OrcPool", pool)
    for placement, verb, kind, address in record.body.get("lineage", ()):
        attempt = made.node("OrcAttempt", made.id_of(placement), scheduler=made.scheduler)
        made.node("OrcAsset", address, kind=kind)
        made.relation("OrcAttempt", attempt, "ORC_READ" if verb == "reads" else "ORC_WROTE", "OrcAsset", address)


def _run(made: Projection, row: PlacementView | DecisionView) -> str | None:
    """The flow run a row belongs to, with its root and its flow; None for plain Dask."""
    if not row.flow_run:
        return None
    run = made.node("OrcFlowRun", row.flow_run, scheduler=made.scheduler, team=row.run_team, deployment=row.deployment)
    if row.flow:
        made.relation("OrcFlowRun", run, "ORC_OF_FLOW", "OrcFlow", made.node("OrcFlow", row.flow))
    if row.root_run and row.root_run != row.flow_run:
        root = made.node("OrcFlowRun", row.root_run, scheduler=made.scheduler)
        made.relation("OrcFlowRun", run, "ORC_PART_OF", "OrcFlowRun", root)
    return run


def _decision(ledger: Reader, made: Projection, record: Record, row: DecisionView) -> None:
    said = decision_of(ledger, row.body, row.id)
    if not isinstance(said, Decision):
        logger.error("record %d of %s: %s; the graph has what its columns say", record.seq, made.scheduler, said)
        said = Decision(
            group="", task_class=row.task_class, name=row.task_class, root_run="", flow_run="", verb=row.verb,
            pool=row.pool, reason=said, options=(),
        )  # fmt: skip
    id = made.node(
        "OrcDecision", made.id_of(row.id), scheduler=made.scheduler, at_ms=record.at_ms, verb=said.verb,
        task_class=said.task_class, name=said.name, reason=said.reason, verdicts=[str(word) for word in said.verdicts],
        approved_by=said.approved_by,
    )  # fmt: skip
    if (run := _run(made, row)) is not None:
        made.relation("OrcDecision", id, "ORC_FOR_RUN", "OrcFlowRun", run)
    for at, option in enumerate(said.options):
        pool = made.node("OrcPool", made.id_of(option.pool), scheduler=made.scheduler, name=option.pool)
        made.relation(
            "OrcDecision", id, "ORC_CONSIDERED", "OrcPool", pool, rank=at, chosen=option.pool == said.pool,
            why_not=option.why_not, usd_micros=option.usd_micros, score_usd_micros=option.score_usd_micros,
            wait_ms=option.wait_ms, run_ms=option.run_ms,
        )  # fmt: skip


def _placed(made: Projection, record: Record, row: PlacementView) -> None:
    task = made.node(
        "OrcTask", made.id_of(row.key), scheduler=made.scheduler, key=row.key, task_class=row.task_class,
        task_run=task_run_of(row.key)
    )  # fmt: skip
    attempt = made.node(
        "OrcAttempt", made.id_of(row.id), scheduler=made.scheduler, pool=row.pool, bound_ms=record.at_ms
    )
    made.relation("OrcAttempt", attempt, "ORC_OF_TASK", "OrcTask", task)
    made.relation("OrcAttempt", attempt, "ORC_DECIDED_BY", "OrcDecision", made.id_of(row.decision))
    if (run := _run(made, row)) is not None:
        made.relation("OrcTask", task, "ORC_IN_RUN", "OrcFlowRun", run)
    for above in row.upstream.split(","):
        if above and not above.startswith("+"):
            made.relation("OrcAttempt", attempt, "ORC_AFTER", "OrcAttempt", made.id_of(above))


def _ended(made: Projection, row: OutcomeView) -> None:
    attempt = made.node(
        "OrcAttempt", made.id_of(row.id), scheduler=made.scheduler, result=row.result, start_ms=row.start_ms,
        run_ms=row.run_ms, usd_micros=row.usd_micros,
    )  # fmt: skip
    if row.lease:
        lease = made.node("OrcLease", made.id_of(row.lease), scheduler=made.scheduler)
        made.relation("OrcAttempt", attempt, "ORC_RAN_ON", "OrcLease", lease)
