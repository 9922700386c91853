"""Prefect's UI told what the ledger says: an event for each bound, moved and refused task,
a table for each flow run.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.events import Event, Resource
from prefect.events.schemas.events import RelatedResource

from agent.ledger.reader import Reader
from agent.model.plain_text import markdown, printable
from agent.model.records import Record
from agent.model.units import show_ms, show_usd
from agent.report.run import RunReport

_NAMESPACE = uuid.UUID("5f0c2f5e-9c38-4a59-9a52-0d3c0b1f3f11")
TABLE, SUMMARY = "Where its tasks ran and why (ORC)", "What it cost (ORC)"


def events(ledger: Reader, record: Record) -> tuple[list[Event], set[str]]:
    """Events of one record, each with an id of its own so that telling it twice is telling it once; and the flow runs
    it is about.
    """
    out, runs = [], set()
    for row in ledger.placements_of(record.seq):
        runs.add(row.flow_run)
        out.append(
            _event(ledger, record, f"p{row.id}", "orc.task.bound", row, {"pool": row.pool, "decision": row.decision})
        )
    for ended in ledger.outcomes_of(record.seq):
        runs.add(ended.flow_run)
        if ended.result in ("preempted", "lost", "moved", "out of memory"):
            out.append(
                _event(
                    ledger,
                    record,
                    f"o{ended.id}",
                    "orc.task.moved",
                    ended,
                    {"pool": ended.pool, "worker": ended.worker or "", "cause": ended.result, "lost_ms": ended.run_ms},
                )
            )
    for decided in ledger.decisions_of(record.seq):
        if decided.verb != "refuse":
            continue
        runs.add(decided.flow_run)
        out.append(_event(ledger, record, f"d{decided.id}", "orc.task.refused", decided, {"decision": decided.id}))
    return out, {run for run in runs if run}


def _event(ledger: Reader, record: Record, what: str, name: str, row: Any, payload: dict[str, Any]) -> Event:
    key = getattr(row, "key", "")
    task_run = task_run_of(key)
    subject = {
        "prefect.resource.id": f"prefect.task-run.{task_run}" if task_run else f"orc.task.{key or row.task_class}",
        "prefect.resource.name": key or row.task_class,
    }
    related = (
        [
            RelatedResource(
                {"prefect.resource.id": f"prefect.flow-run.{row.flow_run}", "prefect.resource.role": "flow-run"}
            )
        ]
        if row.flow_run
        else []
    )
    return Event(
        id=uuid.uuid5(_NAMESPACE, f"{ledger.scheduler}/{record.seq}/{what}"),
        occurred=datetime.fromtimestamp(record.at_ms / 1000, UTC),
        event=name,
        resource=Resource(subject),
        related=related,
        payload={**payload, "task": key, "record": record.seq},
    )


def task_run_of(key: str) -> str:
    """The Prefect task run of a Dask key, or ""."""
    try:
        return str(uuid.UUID(key[-32:])) if len(key) > 32 else ""
    except ValueError:
        return ""


async def write_artifacts(client: PrefectClient, flow_run: str, report: RunReport) -> None:
    """The table and the summary of a flow run: made once, then brought up to date."""
    await _put(client, flow_run, "table", TABLE, decision_rows(report))
    await _put(client, flow_run, "markdown", SUMMARY, summary(report))


async def _put(client: PrefectClient, flow_run: str, kind: str, description: str, data: Any) -> None:
    run = uuid.UUID(flow_run)
    found = await client.read_artifacts(
        artifact_filter=ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[run]), type=ArtifactFilterType(any_=[kind])
        )
    )
    mine = next((artifact for artifact in found if artifact.description == description), None)
    if mine is None:
        await client.create_artifact(ArtifactCreate(type=kind, description=description, data=data, flow_run_id=run))
    elif mine.data != data:
        await client.update_artifact(mine.id, ArtifactUpdate(data=data))


def decision_rows(report: RunReport) -> list[dict[str, Any]]:
    """One row for each task class and pool."""
    return [
        {
            "task": printable(row.name),
            "tasks": row.tasks,
            "pool": row.pool,
            "kind": row.kind,
            "considered": ", ".join(row.considered),
            "why": printable(row.reason),
            "in figures": printable(row.figures),
            "estimated": show_ms(row.estimated_ms) if row.estimated_ms is not None else "",
            "from": row.source,
            "real (median)": show_ms(sorted(row.real_ms)[len(row.real_ms) // 2]) if row.real_ms else "",
            "moved": row.moved,
            "cost": show_usd(row.usd_micros + row.moved_usd_micros),
        }
        for row in report.rows
    ]


def summary(report: RunReport) -> str:
    """Leases beside all on demand, in markdown."""
    lines = ["| worker | kind | start-up | work | idle | sum | ended |", "|---|---|--:|--:|--:|--:|---|"]
    for row in report.leases:
        lease = row.lease
        lines.append(
            f"| {markdown(lease.worker)} | {markdown(lease.kind)} | {show_usd(row.startup_usd_micros)} "
            f"| {show_usd(row.busy_usd_micros)} | {show_usd(row.idle_usd_micros)} | {show_usd(row.usd_micros)} "
            f"| {markdown(lease.cause) if lease.ended_ms else 'running'} |"
        )
    lines.append(
        f"\n**{show_usd(report.usd_micros)}** in all while the run lasted "
        f"({show_ms(report.stop_ms - report.start_ms)})."
    )
    if report.on_demand_usd_micros is not None:
        lines.append(
            f"The same executions packed onto {markdown(report.on_demand_pool)}: "
            f"{show_usd(report.on_demand_usd_micros)} on {report.on_demand_leases} leases."
        )
    lines += [
        f"\n{markdown(m.key)} was {m.result} on {markdown(m.from_pool)} after {show_ms(m.lost_ms)} "
        f"({show_usd(m.usd_micros)} lost) and went to {markdown(m.to_pool) if m.to_pool else 'nowhere yet'}."
        for m in report.moves
    ]
    return "\n".join(lines)
