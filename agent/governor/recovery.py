"""Placements that a governor before this one left open: what became of them, as far as the scheduler knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.model.capacity import NO_LOAD
from agent.model.events import TaskEnded, from_wire
from agent.model.outcomes import Result
from agent.model.plans import Decision
from agent.model.records import Ended, Entry
from agent.planner.estimate import estimate
from agent.state.cluster import ClusterState
from agent.state.recorder import Recorder, RecorderDraft
from agent.state.tasks import BoundTask, ReadyTask


def recover(
    state: ClusterState,
    recorder: Recorder,
    opened: Iterable[tuple[int, str, Any, str, Any]],
    seen: Mapping[str, Any],
    entry: Entry,
    now_ms: int,
) -> RecorderDraft:
    """Close what is over, take up what still runs, and nothing else. What it numbers counts once the entry is on
    record.

    Args:
        opened: open placements: number, key, _, pool, _.
        seen: the extension's full snapshot.
    """
    opened = list(opened)
    draft = recorder.draft(entry, reversed(state.specs))
    # a scheduler that was started by an older release says no more than the first three
    bound = {str(key): (ReadyTask(key, spec, 0, now_ms), address, *more) for key, spec, address, *more in seen["bound"]}
    ended = {str(event.key): event for event in map(from_wire, seen["ended"]) if isinstance(event, TaskEnded)}
    ready = {str(key) for key, *_ in seen["ready"]}
    newest = {key: placement for placement, key, *_ in opened}
    for placement, key, _, pool, _ in opened:
        if newest[key] == placement and key in bound:
            _rebind(state, placement, pool, now_ms, *bound[key])
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
    for key, known in bound.items():
        if key not in newest:
            _adopt(state, draft, now_ms, *known)
    # checkpoints were recalled of every task that ever left with one
    over = [key for key in state.saved if key not in state.bound and key not in state.waiting.group_of]
    for task in over:
        del state.saved[task]
    return draft


def _adopt(state: ClusterState, draft: RecorderDraft, now_ms: int, task: ReadyTask, address: str, *since: Any) -> None:
    """A task is bound and no record says so: another governor's record has not arrived. It gets one."""
    live = state.fleet.live.get(address)
    pool = live.counts.pool if live is not None else ""
    group = state.group(task, now_ms)
    decision = Decision(
        group=group.id, task_class=group.task_class, name=group.name, root_run=group.root_run, flow_run=group.flow_run,
        verb="bind", pool=pool, reason=f"{pool}: bound before this governor began, by one whose record has not arrived",
        options=(),
    )  # fmt: skip
    _rebind(state, draft.placed(draft.decided(decision, group.team), task), pool, now_ms, task, address, *since)


def _rebind(  # noqa: PLR0913
    state: ClusterState,
    placement: int,
    pool: str,
    now_ms: int,
    task: ReadyTask,
    address: str,
    at_ms: int = 0,
    checkpoint: Sequence[int] | None = None,
) -> None:
    """It runs on, since it was bound, from the checkpoint that was known then.

    Args:
        at_ms: 0: not known.
        checkpoint: its last one since then, ms and bytes.
    """
    group = state.group(task, now_ms)
    statistics = {(s.task_class, s.pool): s for s in state.statistics.of_classes({group.task_class})}
    guess = estimate(group, pool if (group.task_class, pool) in statistics else "", statistics, 0.0)
    load = state.fleet.load(group, pool) if state.fleet.state_of(pool) else NO_LOAD
    price = state.fleet.price(pool, now_ms)
    expected_ms, saved = max(1, guess.mean_ms - group.done_ms), (checkpoint[0], checkpoint[1]) if checkpoint else None
    state.sent(
        BoundTask(task, placement, group.id, pool, address, at_ms or now_ms, expected_ms, price, load, saved=saved)
    )
