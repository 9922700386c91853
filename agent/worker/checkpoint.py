"""`from agent import checkpoint`: what a long task has done so far, kept where its results are kept.

    @task
    def fit(table):
        state = checkpoint.load(default={"round": 0})
        for number in range(state["round"], 1000):
            ...
            if number % 100 == 99:
                checkpoint.save({"round": number + 1, ...})

A task that runs again after its worker was lost finds the last one. It belongs to the task run's cache key where it has
one, else to the task run, so that another run of the same task with the same inputs may take it up; it is removed when
the task has succeeded. A save replaces the last checkpoint in one step: on a file system it is written beside and
moved, and an object store replaces objects so by itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle
from distributed import get_worker
from prefect.context import TaskRunContext
from prefect.filesystems import LocalFileSystem
from prefect.transactions import get_transaction
from prefect.utilities.asyncutils import run_coro_as_sync

from agent.errors import CheckpointError
from agent.model.outcomes import Result
from agent.scheduler import protocol
from agent.worker import preemption

T = TypeVar("T")
logger = logging.getLogger("orc.checkpoint")

#: of the format below
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the present task's checkpoint is."""

    task: str
    version: str
    storage: Any
    path: str


def load(default: T | None = None, *, version: str | None = None) -> Any:
    """The last checkpoint of this task run, or the default where there is none.

    Args:
        version: of the state's form; by default the task's own `version`.

    Raises:
        CheckpointError: it is of another version, or of a newer ORC; or there is no task run here.
    """
    place = _place(version)
    data = _read(place)
    _tell(len(data or b""), 0, at_ms=0)
    if not data:
        return default
    _collect(place)
    head, _, body = data.partition(b"\n")
    try:
        said = json.loads(head)
    except ValueError:
        logger.warning("the checkpoint of task %s cannot be read; it starts from the beginning", place.task)
        return default
    if said.get("format") != FORMAT:
        raise CheckpointError(
            f"the checkpoint of task {place.task!r} has format {said.get('format')}, this ORC reads {FORMAT}: run the "
            f"task with the ORC that wrote it, or remove {place.path}"
        )
    if said["version"] != place.version:
        raise CheckpointError(
            f"the checkpoint of task {place.task!r} was written by version {said['version']!r}, this is version "
            f"{place.version!r}: run that version to its end, or remove {place.path}"
        )
    if hashlib.sha256(body).hexdigest() != said["sha256"]:
        logger.warning("the checkpoint of task %s is damaged; it starts from the beginning", place.task)
        return default
    return cloudpickle.loads(body)


def save(state: Any, *, version: str | None = None) -> None:
    """Replace this task run's checkpoint by this state, in one step.

    When the worker is going to be taken away, the task leaves it here, and goes on elsewhere from this state: the call
    does not return then.

    Raises CheckpointError where it cannot be pickled or stored.
    """
    place = _place(version)
    begin = time.time()
    try:
        body = cloudpickle.dumps(state)
    except Exception as error:  # whatever a user's object raises while it is pickled
        raise CheckpointError(f"the checkpoint of task {place.task!r} cannot be pickled: {error}") from error
    digest = hashlib.sha256(body).hexdigest()
    said = {"format": FORMAT, "version": place.version, "at_ms": round(begin * 1000), "sha256": digest}
    _write(place, json.dumps(said).encode() + b"\n" + body)
    _collect(place)
    _tell(len(body), round((time.time() - begin) * 1000), at_ms=round(begin * 1000))
    if why := preemption.asked(_key()):
        raise preemption.Moved(Result.MOVED, f"left at its checkpoint: {why}")


def _key() -> Any:
    """Of the Dask task this is, None where there is none: not on Dask, or in a thread of the body's own."""
    try:
        return get_worker().get_current_task()
    except (ValueError, KeyError):
        return None


def discard() -> None:
    """Remove this task run's checkpoint, if there is one."""
    _remove(_place(None))


# ---------------------------------------------------------------------- where
def _place(version: str | None) -> _Place:
    context = TaskRunContext.get()
    if context is None:
        raise CheckpointError("a checkpoint belongs to a task run, and this code does not run in one")
    transaction = get_transaction()
    key = (transaction.key if transaction is not None else None) or str(context.task_run.id)
    name = hashlib.sha256(f"{context.task.task_key}\0{key}".encode()).hexdigest()[:40]
    storage = context.result_store.result_storage
    if storage is None:
        raise CheckpointError(f"task {context.task.name!r} has no result storage to keep a checkpoint in")
    return _Place(
        task=context.task.name,
        version=str(context.task.version or "") if version is None else version,
        storage=storage,
        path=f"orc-checkpoints/{name}",
    )


def _local(place: _Place) -> Path | None:
    if type(place.storage) is LocalFileSystem:
        return Path(place.storage.basepath or ".").expanduser() / place.path
    return None


def _read(place: _Place) -> bytes | None:
    try:
        if (path := _local(place)) is not None:
            return path.read_bytes()
        return bytes(_called(place.storage.read_path, place.path))
    except Exception as error:  # each storage has its own way to say that there is none
        logger.debug("no checkpoint at %s: %r", place.path, error)
        return None


def _write(place: _Place, data: bytes) -> None:
    try:
        if (path := _local(place)) is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f"{path.name}.{os.getpid()}.new")
            with new.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        else:
            _called(place.storage.write_path, place.path, data)
    except Exception as error:  # each storage has its own errors
        raise CheckpointError(f"the checkpoint of task {place.task!r} cannot be stored: {error}") from error


def _remove(place: _Place) -> None:
    if (path := _local(place)) is not None:
        path.unlink(missing_ok=True)
    elif (remove := getattr(place.storage, "delete_path", None)) is not None:
        _called(remove, place.path)
    else:
        # a storage that cannot delete: an empty object, which is no checkpoint
        _called(place.storage.write_path, place.path, b"")
    _tell(0, 0, at_ms=0)


def _called(method: Any, *arguments: Any) -> Any:
    # sync in a sync task, and in an async one whose loop must not be waited for
    got = method(*arguments)
    return run_coro_as_sync(got) if hasattr(got, "__await__") else got


# ---------------------------------------------------------------------- afterwards
def _collect(place: _Place) -> None:
    """Once the task's success is recorded, its checkpoint is no longer needed."""
    transaction = get_transaction()
    if transaction is None or any(getattr(hook, "orc", None) == place.path for hook in transaction.on_commit_hooks):
        return

    def remove_checkpoint(_: Any) -> None:
        _remove(place)

    remove_checkpoint.orc = place.path  # type: ignore[attr-defined]
    remove_checkpoint.log_on_run = False  # type: ignore[attr-defined]
    transaction.on_commit_hooks.append(remove_checkpoint)


def _tell(size: int, took_ms: int, at_ms: int) -> None:
    """The scheduler learns that the task can leave, how old its last checkpoint is, and what one costs.

    `at_ms` is 0 for none new.
    """
    if (key := _key()) is not None:
        get_worker().log_event(protocol.CHECKPOINT_TOPIC, {"key": key, "at_ms": at_ms, "bytes": size, "ms": took_ms})
