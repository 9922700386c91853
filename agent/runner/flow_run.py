"""Which run is this? Root, deadline and defaults of a flow run, found once and carried with every task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.logging import get_logger

from agent.errors import SettingError, UnitError
from agent.model.units import duration_ms, show_ms
from agent.runner.declared_needs import needs_of
from agent.worker.run_context import RunInfo, current_run

_ROOT, _DEADLINE = "orc.root", "orc.deadline_ms"


#: tags of a flow run or its deployment: whose it is, where its flow does not say; its deadline, whatever its flow says
TEAM, DEADLINE = "team:", "deadline:"


def current() -> RunInfo:
    """The present flow run; outside of a flow, an empty one."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if (known := current_run.get()) is not None and (run is None or str(run.id) == known.flow_run):
        return known
    if context is None or run is None:
        return RunInfo()
    said = dict(needs_of(context.flow)) if context.flow is not None else {}
    with get_client(sync_client=True) as client:
        root, deadline = _marked(client, context.flow, run)
        deployment = client.read_deployment(run.deployment_id).name if run.deployment_id else ""
    said.pop("deadline_ms", None)
    return RunInfo(
        flow_run=str(run.id),
        root_run=root,
        flow=context.flow.name if context.flow is not None else "",
        deployment=deployment,
        team=said.get("team") or _tagged(run, TEAM) or "",
        expected_start_ms=_ms(run.expected_start_time),
        deadline_ms=deadline,
        defaults=said,
    )


def mark(flow: Any, run: FlowRun, _: Any) -> None:
    """Hook of a flow with needs, called as it begins.

    Its root and deadline go into its labels, for the flows below it.
    """
    with get_client(sync_client=True) as client:
        _label(client, run, *_found(client, flow, run))


def unended(flow_run: str) -> dict[str, datetime]:
    """Task runs of a flow run that the server has in no terminal state, and since when they are in theirs."""
    found: dict[str, datetime] = {}
    with get_client(sync_client=True) as client:
        while True:
            body = {**_open(flow_run), "sort": "ID_DESC", "limit": 200, "offset": len(found)}
            page = client.request("POST", "/task_runs/filter", json=body).json()
            found |= {run["id"]: _since(run) for run in page}
            if len(page) < 200:
                return found


def _since(run: Mapping[str, Any]) -> datetime:
    # a server that was killed may keep a task run and lose the row of its state
    state = run.get("state")
    return datetime.fromisoformat(state["timestamp"]) if state else datetime.now(UTC)


def open_task_runs(flow_run: str) -> int:
    """How many task runs of a flow run the server has in no terminal state."""
    with get_client(sync_client=True) as client:
        return int(client.request("POST", "/task_runs/count", json=_open(flow_run)).json())


def _open(flow_run: str) -> dict[str, Any]:
    states = [state.value for state in StateType if state not in TERMINAL_STATES]
    return {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": {"state": {"type": {"any_": states}}}}


def _marked(client: SyncPrefectClient, flow: Any, run: FlowRun) -> tuple[str, int | None]:
    """Root and deadline: as the hook wrote them, else found and written now."""
    if mark in getattr(flow, "on_running_hooks", ()):
        labels = client.read_flow_run(run.id).labels
        if _ROOT in labels:
            return str(labels[_ROOT]), int(labels[_DEADLINE]) if _DEADLINE in labels else None
    found = _found(client, flow, run)
    _label(client, run, *found)
    return found


def _found(client: SyncPrefectClient, flow: Any, run: FlowRun) -> tuple[str, int | None]:
    root, above = _above(client, run)
    return root, _own(run, _relative(flow, run), above)


def _relative(flow: Any, run: FlowRun) -> int | None:
    """The deadline that a tag says, else the flow, ms from the expected start."""
    if (tagged := _tagged(run, DEADLINE)) is None:
        return needs_of(flow).get("deadline_ms") if flow is not None else None
    try:
        return duration_ms(tagged)
    except UnitError as error:
        raise SettingError(f"flow run {run.name!r}: tag {DEADLINE}{tagged}: {error}") from error


def _tagged(run: FlowRun, kind: str) -> str | None:
    """What the first tag of that kind says."""
    return next((tag.removeprefix(kind).strip() for tag in sorted(run.tags) if tag.startswith(kind)), None)


def _label(client: SyncPrefectClient, run: FlowRun, root: str, deadline: int | None) -> None:
    # Prefect does not hand labels down to child runs
    labels: dict[str, Any] = {_ROOT: root} if deadline is None else {_ROOT: root, _DEADLINE: deadline}
    client.request("PATCH", "/flow_runs/{id}/labels", path_params={"id": run.id}, json=labels)


def _ms(at: datetime | None) -> int:
    return round((at or datetime.now(UTC)).timestamp() * 1000)


def _own(run: FlowRun, relative: int | None, above: int | None) -> int | None:
    """The earlier of the run's own deadline and its parent's.

    Lateness does not move the goal; a retry behind it does.
    """
    if relative is None:
        return above
    own, now = _ms(run.expected_start_time) + relative, _ms(None)
    if run.run_count > 1 and own < now:
        own = now + relative
        get_logger("orc").warning(
            "this retry began after the deadline: it counts as a new start and has %s from now", show_ms(relative)
        )
    return own if above is None else min(own, above)


def _above(client: SyncPrefectClient, run: FlowRun) -> tuple[str, int | None]:
    """Root run and inherited deadline, by the labels of the runs above, or by walking up to the root."""
    at, seen = run, 0
    while at.parent_task_run_id is not None and seen < 50:
        parent = client.read_task_run(at.parent_task_run_id).flow_run_id
        if parent is None:
            break
        at, seen = client.read_flow_run(UUID(str(parent))), seen + 1
        if _ROOT in at.labels:
            deadline = at.labels.get(_DEADLINE)
            return str(at.labels[_ROOT]), int(deadline) if deadline is not None else None
    return str(at.id), None


def fingerprint(*parts: Any) -> str:
    """A short text that is equal when the parts are."""
    from agent.model.codec import digest

    return digest(json.dumps(parts, sort_keys=True, default=str).encode())[:24]
