"""Placements that a governor before this one left open: what became of them, as far as the scheduler knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.model.capacity import NO_LOAD
from agent.model.events import TaskEnded, from_wire
from agent.model.outcomes import Result
from agent.model.plans import Decision
from agent.model.records import Ended, Entry
from agent.state.cluster import ClusterState
from agent.state.recorder import Recorder, RecorderDraft
from agent.state.tasks import BoundTask, ReadyTask

#: a task that was bound before is expected to take so long, ms
EXPECTED_MS = 60_000


def recover(
    state: ClusterState,
    recorder: Recorder,
    opened: Iterable[tuple[int, str, Any, str, Any]],
    seen: Mapping[str, Any],
    entry: Entry,
    now_ms: int,
) -> RecorderDraft:
    """Close what is over, take up what still runs, and nothing else. What it numbers counts once the entry is on record.

    Args:
        opened: open placements: number, key, _, pool, _.
        seen: the extension's full snapshot.
    """
    opened = list(opened)
    draft = recorder.draft(entry, reversed(state.specs))
    bound = {str(key): (key, spec, address) for key, spec, address in seen["bound"]}
    ended = {str(event.key): event for event in map(from_wire, seen["ended"]) if isinstance(event, TaskEnded)}
    ready = {str(key) for key, *_ in seen["ready"]}
    newest = {key: placement for placement, key, *_ in opened}
    for placement, key, _, pool, _ in opened:
        if newest[key] == placement and key in bound:
            theirs, spec, address = bound[key]
            _rebind(state, placement, pool, ReadyTask(theirs, spec, 0, now_ms), address, now_ms)
        elif newest[key] == placement and key in ended:
            event = ended[key]
            entry.outcomes.append(
                Ended(
                    placement=placement,
                    result=event.result,
                    start_ms=event.start_ms,
                    run_ms=event.stop_ms - event.start_ms,
                    lineage=tuple((str(verb), str(kind), str(at)) for verb, kind, at in event.lineage),
                )
            )
        else:
            result = Result.NOT_SENT if key in ready else Result.UNKNOWN
            entry.outcomes.append(Ended(placement=placement, result=result))
    entry.says["closed"] = len(entry.outcomes)
    for key, (theirs, spec, address) in bound.items():
        if key not in newest:
            _adopt(state, draft, ReadyTask(theirs, spec, 0, now_ms), address, now_ms)
    return draft


def _adopt(state: ClusterState, draft: RecorderDraft, task: ReadyTask, address: str, now_ms: int) -> None:
    """A task is bound and no record says so: another governor's record has not arrived. It gets one."""
    live = state.fleet.live.get(address)
    pool = live.counts.pool if live is not None else ""
    group = state.group(task, now_ms)
    decision = Decision(
        group=group.id, task_class=group.task_class, name=group.name, root_run=group.root_run, flow_run=group.flow_run, verb="bind",
        pool=pool, reason=f"{pool}: bound before this governor began, by one whose record has not arrived", options=(),
    )  # fmt: skip
    _rebind(state, draft.placed(draft.decided(decision, group.team), task), pool, task, address, now_ms)


def _rebind(state: ClusterState, placement: int, pool: str, task: ReadyTask, address: str, now_ms: int) -> None:
    group = state.group(task, now_ms)
    load = state.fleet.load(group, pool) if state.fleet.state_of(pool) else NO_LOAD
    price = state.fleet.price(pool, now_ms)
    state.sent(BoundTask(task, placement, group.id, pool, address, now_ms, EXPECTED_MS, price, load))
