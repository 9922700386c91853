"""What a task says, read once: needs, run, class, and the facts rules may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.errors import SettingError
from agent.model import needs as said
from agent.model.needs import Needs
from agent.scheduler import protocol

Facts = dict[str, str | int | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One distinct saying of tasks, shared by all that say it."""

    number: int
    #: name people read
    name: str
    task_class: str
    needs: Needs
    flow_run: str = ""
    root_run: str = ""
    flow: str = ""
    deployment: str = ""
    team: str = ""
    trace: str = ""
    #: absolute, ms
    deadline_ms: int | None = None
    #: items in a chunk of small ones, and why so many; 1 for an ordinary task
    items: int = 1
    chunk: str = ""
    #: what is wrong with the saying; the tasks are refused with it
    error: str = ""


def read(number: int, says: Mapping[str, Any], now_ms: int) -> TaskSpec:
    """A spec from what the extension reports; a wrong one carries its error."""
    body, prefix = says["says"], str(says["prefix"])
    resources = tuple((str(k), round(float(v) * 1000)) for k, v in sorted(says["resources"].items()))
    run: Mapping[str, Any] = body.get(protocol.RUN) or {}
    try:
        if protocol.NEEDS in body:
            fields = dict(body[protocol.NEEDS])
        else:
            fields = said.read(
                {
                    k: v
                    for k, v in body.items()
                    if k
                    not in (protocol.SPEC, protocol.RUN, protocol.NAME, protocol.INNER, protocol.MODE, protocol.BATCH)
                }
            )
        needs = said.from_fields({**fields, "resources": resources})
        error = ""
    except (SettingError, TypeError, ValueError) as wrong:
        needs, error = Needs(resources=resources), f"{prefix}: {wrong}"
    batch: Mapping[str, Any] = body.get(protocol.BATCH) or {}
    deadline = run.get("deadline_ms")
    if deadline is None and needs.deadline_ms is not None and not run:
        deadline = now_ms + needs.deadline_ms
    return TaskSpec(
        number=number,
        name=str(body.get(protocol.NAME) or prefix),
        task_class=_class(needs.task_class, batch) or str(body.get("task_class") or prefix),
        needs=needs,
        flow_run=run.get("flow_run", ""),
        root_run=run.get("root_run", ""),
        flow=run.get("flow", ""),
        deployment=run.get("deployment", ""),
        team=needs.team or run.get("team", ""),
        trace=run.get("trace", ""),
        deadline_ms=deadline,
        items=int(batch.get("size", 1)),
        chunk=f"chunks of {batch['size']} of {batch['items']:,} items: {batch['why']}" if batch else "",
        error=error,
    )


def _class(said: str | None, batch: Mapping[str, Any]) -> str:
    """The class a task says it is of; a chunk takes as long as its items together, and is of another."""
    return said + protocol.CHUNKS if said and batch else said or ""


def facts(spec: TaskSpec, input_mib: int, preemptions: int, losses: int, now_ms: int) -> Facts:
    """The facts of a placement group, by the names of `rules.facts`."""
    at, n = datetime.fromtimestamp(now_ms / 1000, UTC), spec.needs
    out: Facts = {
        "task_class": spec.task_class,
        "task": spec.name,
        "flow": spec.flow,
        "deployment": spec.deployment,
        "team": spec.team,
        "region": n.region or "",
        "priority": n.priority,
        "gpu": n.gpu,
        "interruptible": n.interruptible,
        "cpus": n.cpus,
        "memory_mib": n.memory_mib or 0,
        "input_mib": input_mib,
        "runtime_seconds": (n.runtime_ms or 0) // 1000,
        "has_deadline": spec.deadline_ms is not None,
        "has_budget": n.budget is not None,
        "preemptions": preemptions,
        "losses": losses,
        "hour": at.hour,
        "weekday": at.weekday(),
    }
    out.update({f"label.{name}": value for name, value in n.labels})
    return out
