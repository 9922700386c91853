"""Events in, effects out: what each of the extension's deltas does to the cluster's state. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.model.effects import CopyOff, Effect, Note, RefuseTask, SeeTo
from agent.planner.room import share
from agent.scheduler import protocol as p
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
        out += _ready(state, now_ms, *ready)
    state.dirty = True
    return tuple(out)


def apply(state: ClusterState, delta: p.Delta, now_ms: int) -> tuple[Effect, ...]:
    """Take one delta in. Every delta may come twice."""
    state.dirty = True
    return tuple(_HANDLERS[delta[0]](state, now_ms, *delta[1:]))


# ---------------------------------------------------------------------- tasks
def _ready(  # noqa: PLR0913
    state: ClusterState, now_ms: int, key: Any, spec: int, input_bytes: int, since_ms: int,
    upstream: Iterable[Any] = (), more: int = 0, dask_priority: int = 0,
) -> Iterator[Effect]:  # fmt: skip
    if key in state.bound:
        return
    state.waiting.drop(key)
    if error := state.specs[spec].error:
        yield RefuseTask(key=key, why=error)
        return
    state.graphs.again(key)
    above = [str(state.placed[k]) for k in upstream if k in state.placed] + ([f"+{more}"] if more else [])
    state.wait(ReadyTask(key, spec, input_bucket(input_bytes), since_ms, ",".join(above), dask_priority), now_ms)


def _ended(  # noqa: C901, PLR0913
    state: ClusterState, now_ms: int, key: Any, result: str, address: str | None, start_ms: int, stop_ms: int,
    output_bytes: int, lineage: Iterable[Any] = (), checkpoint: Sequence[int] = (),
) -> Iterator[Effect]:  # fmt: skip
    bound = state.bound.pop(key, None)
    state.movable.leaving.pop(key, None)
    if bound is None:
        if result == "cancelled":
            state.waiting.drop(key)
        return
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
        lineage=lineage,
    )
    if verdict.out_of_memory:
        yield from _ran_out_of_memory(state, spec.task_class, bound)
    elif verdict.over:
        state.losses.pop(key, None)
        state.saved.pop(key, None)
        state.graphs.end(key)
    elif result != "withdrawn":
        preemptions, losses = state.losses.get(key, (0, 0))
        state.losses[key] = (preemptions + verdict.preempted, losses + verdict.lost)
    if checkpoint and checkpoint[0] > bound.at_ms and verdict.result in outcomes.UNDONE:
        done_ms = (saved.done_ms if saved else 0) + checkpoint[0] - bound.at_ms
        state.checkpointed(key, done_ms, bound.pool, -(-checkpoint[1] // 2**20))
    if result == "done" and start_ms and state.learns_runtimes:
        state.statistics.record_execution(spec.task_class, ran_in, stop_ms or now_ms, ended, spec.root_run)
        state.graphs.learned(spec)
        state.tally.ran(bound.expected_ms, ended.run_ms)
    if spec.root_run:
        state.root_seen_ms[spec.root_run] = now_ms
    state.tally.outcomes[bound.pool, verdict.result] += 1
    state.ended.append(ended)


def _ran_out_of_memory(state: ClusterState, task_class: str, bound: BoundTask) -> Iterator[Effect]:
    """A task ran out of memory: its class is given more from now on."""
    mib = bound.load.memory_mib
    if mib > state.statistics.oom_mib.get(task_class, 0):
        state.out_of_memory(task_class, mib)
        yield Note(kind="out_of_memory", body={"task_class": task_class, "mib": mib})


def _gone(state: ClusterState, now_ms: int, key: Any) -> Iterator[Effect]:
    state.waiting.drop(key)
    state.losses.pop(key, None)
    yield from ()


def _specified(state: ClusterState, now_ms: int, number: int, says: Mapping[str, Any]) -> Iterator[Effect]:
    if number == len(state.specs):
        state.specs.append(task_specs.read(number, says, now_ms))
    yield from ()


def _submitted(state: ClusterState, now_ms: int, tasks: Iterable[Any]) -> Iterator[Effect]:
    state.submitted(tasks)
    yield from ()


def _checkpointed(state: ClusterState, now_ms: int, key: Any, at_ms: int, size: int) -> Iterator[Effect]:
    if (bound := state.bound.get(key)) is not None:
        bound.saved = (at_ms, size)
    yield from ()


def _lent(state: ClusterState, now_ms: int, key: Any) -> Iterator[Effect]:
    bound = state.bound.get(key)
    if bound is not None and (live := state.fleet.live.get(bound.address)) is not None:
        live.counts.seceded.add(key)
    yield from ()


def _passed_through(state: ClusterState, now_ms: int, *_: Any) -> Iterator[Effect]:
    state.passed_through += 1
    yield from ()


def _placed_by_dask(
    state: ClusterState, now_ms: int, key: Any, spec: int, input_bytes: int, since_ms: int, address: str
) -> Iterator[Effect]:
    state.shadow[key] = (ReadyTask(key, spec, input_bucket(input_bytes), since_ms), address)
    yield from ()


# ---------------------------------------------------------------------- workers
def _joined(state: ClusterState, now_ms: int, worker: Mapping[str, Any]) -> Iterator[Effect]:
    state.fleet.joined(worker, now_ms)
    yield from ()


def _left(state: ClusterState, now_ms: int, address: str, why: str = "") -> Iterator[Effect]:
    if address not in state.fleet.live:
        return
    for key, bound in list(state.bound.items()):
        if bound.address == address:
            yield from _ended(state, now_ms, key, "lost", address, 0, 0, 0)
    lease = state.fleet.gone(address, why, now_ms)
    if lease is not None:
        yield SeeTo(lease=lease, why=why)


def _paused(state: ClusterState, now_ms: int, address: str, paused: bool) -> Iterator[Effect]:
    if (live := state.fleet.live.get(address)) is not None:
        live.counts.paused = paused
    yield from ()


def _busy(state: ClusterState, now_ms: int, address: str, others: int, slots: int) -> Iterator[Effect]:
    if (live := state.fleet.live.get(address)) is not None:
        live.runs_others(others, slots, now_ms)
    yield from ()


def _wanted(state: ClusterState, now_ms: int, workers: int, why: str) -> Iterator[Effect]:
    state.fleet.wanted, state.fleet.wanted_why = workers, why
    yield from ()


def _noticed(state: ClusterState, now_ms: int, address: str, left_ms: int, why: str) -> Iterator[Effect]:
    if (live := state.fleet.live.get(address)) is not None:
        live.notice()
        yield Note(kind="notice", body={"worker": live.counts.name, "left_ms": left_ms, "why": why})
        yield CopyOff(address=address)


def _restarted(state: ClusterState, now_ms: int, held: int) -> Iterator[Effect]:
    yield Note(kind="restart", body={"held": held})
    for key in list(state.bound):
        yield from _ended(state, now_ms, key, "cancelled by restart", None, 0, 0, 0)
    state.waiting.clear()


_HANDLERS: Mapping[str, Callable[..., Iterator[Effect]]] = {
    p.READY: _ready,
    p.ENDED: _ended,
    p.GONE: _gone,
    p.SPECIFIED: _specified,
    p.SUBMITTED: _submitted,
    p.SAVED: _checkpointed,
    p.LENT: _lent,
    p.THROUGH: _passed_through,
    p.BOUND_ELSEWHERE: _placed_by_dask,
    p.JOINED: _joined,
    p.LEFT: _left,
    p.PAUSED: _paused,
    p.NOTICE: _noticed,
    p.BUSY: _busy,
    p.WANTED: _wanted,
    p.RESTARTED: _restarted,
}
