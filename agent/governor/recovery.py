"""Placements that a governor before this one left open: what became of them, as far as the scheduler knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.model.plans import Decision
from agent.model.records import Ended, Entry
from agent.state.cluster import Bound, ClusterState
from agent.state.groups import Task
from agent.state.recorder import Recorder

#: a task that was bound before is expected to take so long, ms
EXPECTED_MS = 60_000


def reconcile(
    view: ClusterState,
    recorder: Recorder,
    opened: Iterable[tuple[int, str, Any, str, Any]],
    state: Mapping[str, Any],
    entry: Entry,
    now: int,
) -> None:
    """Close what is over, take up what still runs, and nothing else.

    Args:
        opened: open placements: number, key, _, pool, _.
        state: the extension's full snapshot.
    """
    opened = list(opened)
    bound = {str(key): (key, spec, address) for key, spec, address in state["bound"]}
    ended = {str(delta[1]): delta for delta in state["ended"]}
    ready = {str(key): key for key, *_ in state["ready"]}
    newest = {key: id for id, key, *_ in opened}
    for id, key, _, pool, _ in opened:
        if newest[key] == id and key in bound:
            theirs, spec, address = bound[key]
            _rebind(view, id, pool, Task(theirs, spec, 0, now), address, now)
        elif newest[key] == id and key in ended:
            _, _, result, _, start, stop, _, lineage, *_ = ended[key]
            named = tuple((str(verb), str(kind), str(at)) for verb, kind, at in lineage)
            entry.outcomes.append(
                Ended(placement=id, result=result, start_ms=start, run_ms=stop - start, lineage=named)
            )
        else:
            entry.outcomes.append(Ended(placement=id, result="not sent" if key in ready else "unknown"))
    entry.says["closed"] = len(entry.outcomes)
    for key, (theirs, spec, address) in bound.items():
        if key not in newest:
            _adopt(view, recorder, Task(theirs, spec, 0, now), address, entry, now)


def _adopt(view: ClusterState, recorder: Recorder, task: Task, address: str, entry: Entry, now: int) -> None:
    """A task is bound and no record says so: another governor's record has not arrived. It gets one."""
    live = view.fleet.live.get(address)
    pool = live.counts.pool if live is not None else ""
    group = view.group(task, now)
    decision = Decision(
        group=group.id, task_class=group.task_class, name=group.name, root_run=group.root_run, flow_run=group.flow_run, verb="bind",
        pool=pool, reason=f"{pool}: bound before this governor began, by one whose record has not arrived", options=(),
    )  # fmt: skip
    _rebind(view, recorder.placed(recorder.decided(decision, entry), task, entry), pool, task, address, now)


def _rebind(view: ClusterState, placement: int, pool: str, task: Task, address: str, now: int) -> None:
    group = view.group(task, now)
    load = view.load(group, pool) if view.fleet.state_of(pool) else (0, 0, 0)
    view.sent(Bound(task, placement, group.id, pool, address, now, EXPECTED_MS, view.fleet.price(pool, now), load))
