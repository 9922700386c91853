"""Events in, effects out: what each thing that the extension tells of does to the cluster's state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agent.model.effects import CopyOff, Effect, Note, RefuseTask, SeeTo
from agent.model.events import (
    Event,
    GraphSubmitted,
    Restarted,
    SpecAdded,
    TaskCancelled,
    TaskCheckpointed,
    TaskEnded,
    TaskPassedThrough,
    TaskPlacedByDask,
    TaskReady,
    TaskSeceded,
    WorkerBusy,
    WorkerJoined,
    WorkerLeft,
    WorkerNoticed,
    WorkerPaused,
    WorkersWanted,
)
from agent.model.outcomes import Result
from agent.model.units import mib_of
from agent.planner.room import share
from agent.state import outcomes, task_specs
from agent.state.cluster import ClusterState
from agent.state.tasks import BoundTask, ReadyTask, input_bucket


def begin(state: ClusterState, snapshot: Mapping[str, Any], now_ms: int) -> tuple[Effect, ...]:
    """Start from the extension's full snapshot."""
    state.specs = [task_specs.read(number, says, now_ms) for number, says in enumerate(snapshot["specs"])]
    state.fleet.live.clear()
    state.waiting.clear()
    for worker in snapshot["workers"]:
        state.fleet.joined(worker, now_ms)
    state.submitted(snapshot.get("submitted", ()))
    state.fleet.wanted, state.fleet.wanted_why = snapshot.get("wanted", (0, ""))
    out: list[Effect] = []
    for ready in snapshot["ready"]:
        out += _ready(state, now_ms, TaskReady(*ready))
    state.dirty = True
    return tuple(out)


def apply(state: ClusterState, event: Event, now_ms: int) -> tuple[Effect, ...]:
    """Take one event in. Every event may come twice."""
    state.dirty = True
    return tuple(_HANDLERS[type(event)](state, now_ms, event))


# ---------------------------------------------------------------------- tasks
def _ready(state: ClusterState, now_ms: int, event: TaskReady) -> Sequence[Effect]:
    key = event.key
    if key in state.bound:
        return ()
    state.waiting.drop(key)
    if error := state.specs[event.spec].error:
        return (RefuseTask(key=key, why=error),)
    state.graphs.again(key)
    above = [str(state.placed[k]) for k in event.upstream if k in state.placed]
    if event.more_upstream:
        above.append(f"+{event.more_upstream}")
    size, upstream = input_bucket(event.input_bytes), ",".join(above)
    state.wait(ReadyTask(key, event.spec, size, event.since_ms, upstream, event.dask_priority), now_ms)
    return ()


def _ended(state: ClusterState, now_ms: int, event: TaskEnded) -> Sequence[Effect]:  # noqa: C901
    key, result, start_ms, stop_ms = event.key, event.result, event.start_ms, event.stop_ms
    bound = state.bound.pop(key, None)
    state.movable.leaving.pop(key, None)
    if bound is None:
        if key in state.shadow:
            state.shadow_ended[key] = event
        elif result is Result.CANCELLED:
            state.waiting.drop(key)
        return ()
    live = state.fleet.live.get(bound.address)
    if live is not None:
        live.counts.bound.pop(key, None)
        live.counts.seceded.discard(key)
        if not live.busy:
            live.idle_since_ms = now_ms
    spec, saved = state.specs[bound.task.spec], state.saved.get(key)
    status = state.fleet.pools.get(bound.pool)
    verdict = outcomes.classify(result, live, status is not None and status.pool.market == "spot")
    ran_in = live.counts.pool if live is not None else bound.pool
    group, pool = state.groups.known.get(bound.group), state.fleet.state_of(bound.pool)
    ended = outcomes.ended(
        bound,
        verdict.result,
        lease=(live.lease if live is not None else state.fleet.lease_of.get(bound.address)) or 0,
        start_ms=start_ms,
        run_ms=outcomes.ran_ms(bound, verdict.result, start_ms, stop_ms, now_ms),
        worker_share=share(group, pool) if group is not None and pool is not None else 1.0,
        ran_in=ran_in,
        spared_ms=saved.done_ms if saved else 0,
        items=spec.items,
        lineage=event.lineage,
    )
    effects: Sequence[Effect] = ()
    if verdict.out_of_memory:
        effects = _ran_out_of_memory(state, spec.task_class, bound)
    elif verdict.over:
        state.losses.pop(key, None)
        state.saved.pop(key, None)
        state.graphs.end(key)
    elif result is not Result.WITHDRAWN:
        preemptions, losses = state.losses.get(key, (0, 0))
        state.losses[key] = (preemptions + verdict.preempted, losses + verdict.lost)
    checkpoint = event.checkpoint
    if checkpoint and checkpoint[0] > bound.at_ms and verdict.result in outcomes.UNDONE:
        done_ms = (saved.done_ms if saved else 0) + checkpoint[0] - bound.at_ms
        mib = mib_of(checkpoint[1])
        body = {"task": str(key), "done_ms": done_ms, "pool": bound.pool, "mib": mib}
        state.checkpointed(key, done_ms, bound.pool, mib)
        effects = (*effects, Note(kind="checkpoint", body=body))
    if result is Result.DONE and start_ms and state.learns_runtimes:
        state.statistics.record_execution(spec.task_class, ran_in, stop_ms or now_ms, ended, spec.root_run)
        state.graphs.learned(spec)
        state.tally.ran(bound.expected_ms, ended.run_ms)
    if spec.root_run:
        state.root_seen_ms[spec.root_run] = now_ms
    state.tally.outcomes[bound.pool, verdict.result] += 1
    state.ended.append(ended)
    return effects


def _ran_out_of_memory(state: ClusterState, task_class: str, bound: BoundTask) -> Sequence[Effect]:
    """A task ran out of memory: its class is given more from now on."""
    mib = bound.load.memory_mib
    if mib > state.statistics.oom_mib.get(task_class, 0):
        state.out_of_memory(task_class, mib)
        return (Note(kind="out_of_memory", body={"task_class": task_class, "mib": mib}),)
    return ()


def _cancelled(state: ClusterState, now_ms: int, event: TaskCancelled) -> Sequence[Effect]:
    state.waiting.drop(event.key)
    state.losses.pop(event.key, None)
    return ()


def _specified(state: ClusterState, now_ms: int, event: SpecAdded) -> Sequence[Effect]:
    if event.number == len(state.specs):
        state.specs.append(task_specs.read(event.number, event.saying, now_ms))
    return ()


def _submitted(state: ClusterState, now_ms: int, event: GraphSubmitted) -> Sequence[Effect]:
    state.submitted(event.tasks)
    return ()


def _checkpointed(state: ClusterState, now_ms: int, event: TaskCheckpointed) -> Sequence[Effect]:
    if (bound := state.bound.get(event.key)) is not None:
        bound.saved = (event.at_ms, event.nbytes)
    return ()


def _seceded(state: ClusterState, now_ms: int, event: TaskSeceded) -> Sequence[Effect]:
    bound = state.bound.get(event.key)
    if bound is not None and (live := state.fleet.live.get(bound.address)) is not None:
        live.counts.seceded.add(event.key)
    return ()


def _passed_through(state: ClusterState, now_ms: int, event: TaskPassedThrough) -> Sequence[Effect]:
    state.passed_through += 1
    return ()


def _placed_by_dask(state: ClusterState, now_ms: int, event: TaskPlacedByDask) -> Sequence[Effect]:
    ready = ReadyTask(event.key, event.spec, input_bucket(event.input_bytes), event.since_ms)
    state.shadow[event.key] = (ready, event.address)
    # it runs again: its end is still to come
    state.shadow_ended.pop(event.key, None)
    return ()


# ---------------------------------------------------------------------- workers
def _joined(state: ClusterState, now_ms: int, event: WorkerJoined) -> Sequence[Effect]:
    state.fleet.joined(event.worker, now_ms)
    return ()


def _left(state: ClusterState, now_ms: int, event: WorkerLeft) -> Sequence[Effect]:
    address = event.address
    effects: list[Effect] = []
    if address not in state.fleet.live:
        return ()
    for key, bound in list(state.bound.items()):
        if bound.address == address:
            effects += _ended(state, now_ms, TaskEnded(key, Result.LOST, address))
    lease = state.fleet.gone(address, event.why, now_ms)
    if lease is not None:
        effects.append(SeeTo(lease=lease, why=event.why))
    return effects


def _paused(state: ClusterState, now_ms: int, event: WorkerPaused) -> Sequence[Effect]:
    if (live := state.fleet.live.get(event.address)) is not None:
        live.counts.paused = event.paused
    return ()


def _busy(state: ClusterState, now_ms: int, event: WorkerBusy) -> Sequence[Effect]:
    if (live := state.fleet.live.get(event.address)) is not None:
        live.runs_others(event.others, event.slots, now_ms)
    return ()


def _wanted(state: ClusterState, now_ms: int, event: WorkersWanted) -> Sequence[Effect]:
    state.fleet.wanted, state.fleet.wanted_why = event.workers, event.why
    return ()


def _noticed(state: ClusterState, now_ms: int, event: WorkerNoticed) -> Sequence[Effect]:
    if (live := state.fleet.live.get(event.address)) is None:
        return ()
    live.notice()
    body = {"worker": live.counts.name, "left_ms": event.left_ms, "why": event.why}
    return (Note(kind="notice", body=body), CopyOff(address=event.address))


def _restarted(state: ClusterState, now_ms: int, event: Restarted) -> Sequence[Effect]:
    effects: list[Effect] = [Note(kind="restart", body={"held": event.held})]
    for key in list(state.bound):
        effects += _ended(state, now_ms, TaskEnded(key, Result.CANCELLED_BY_RESTART))
    state.waiting.clear()
    return effects


_HANDLERS: Mapping[type[Event], Callable[[ClusterState, int, Any], Sequence[Effect]]] = {
    TaskReady: _ready,
    TaskEnded: _ended,
    TaskCancelled: _cancelled,
    SpecAdded: _specified,
    GraphSubmitted: _submitted,
    TaskCheckpointed: _checkpointed,
    TaskSeceded: _seceded,
    TaskPassedThrough: _passed_through,
    TaskPlacedByDask: _placed_by_dask,
    WorkerJoined: _joined,
    WorkerLeft: _left,
    WorkerPaused: _paused,
    WorkerNoticed: _noticed,
    WorkerBusy: _busy,
    WorkersWanted: _wanted,
    Restarted: _restarted,
}
