"""Workflows: tasks with runtimes and dependencies, read from WfFormat 1.5 (wfcommons.org/format)."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.errors import WorkflowError
from agent.model.needs import Needs

#: what names an instance and not a class: `_ID0000001`, `_ID000001`, `_12`
_INSTANCE = re.compile(r"(_ID)?_?\d+$")


INTERRUPTIBLE = Needs(interruptible=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowTask:
    """One task of a workflow."""

    id: str
    #: tasks of a class share their history
    task_class: str
    #: time it takes on a worker of no special speed, ms, ≥ 1
    run_ms: int
    #: ids of the tasks whose results it reads
    parents: tuple[str, ...] = ()
    needs: Needs = INTERRUPTIBLE
    #: size of its checkpoint, MiB
    checkpoint_mib: int = 0
    #: how many times faster it is on a GPU model: (model, factor)
    faster: tuple[tuple[str, float], ...] = ()

    def run_on(self, gpu_model: str | None) -> int:
        """Its time on a worker with GPUs of that model, or with none, ms."""
        factor = dict(self.faster).get(gpu_model or "", 1.0)
        return max(1, round(self.run_ms / factor))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A graph of tasks, parents before children."""

    name: str
    tasks: tuple[WorkflowTask, ...]

    @property
    def work_ms(self) -> int:
        """Sum of all runtimes, ms."""
        return sum(task.run_ms for task in self.tasks)

    @property
    def path_ms(self) -> int:
        """Longest path, ms: no schedule is shorter, however many workers there are."""
        ends: dict[str, int] = {}
        for task in self.tasks:
            ends[task.id] = task.run_ms + max((ends[parent] for parent in task.parents), default=0)
        return max(ends.values())

    def scaled(self, factor: float) -> Workflow:
        """Every runtime times a factor, which is to be stated beside every figure."""
        if not (math.isfinite(factor) and factor > 0):
            raise WorkflowError(f"workflow {self.name}: scale {factor!r} must be a finite number above 0")
        tasks = tuple(replace(task, run_ms=max(1, round(task.run_ms * factor))) for task in self.tasks)
        return replace(self, tasks=tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a workflow: when it arrives, and until when it must be done."""

    name: str
    workflow: Workflow
    #: instants in the simulation's time, ms
    arrives_ms: int
    deadline_ms: int | None = None


def ordered(name: str, tasks: Iterable[WorkflowTask]) -> Workflow:  # noqa: C901
    """A workflow of these tasks, parents first. Raises WorkflowError: empty, twice, dangling, cyclic, negative."""
    found: dict[str, WorkflowTask] = {}
    for task in tasks:
        if task.id in found:
            raise WorkflowError(f"workflow {name}: task {task.id} is there twice")
        if task.run_ms < 0:
            raise WorkflowError(f"workflow {name}: task {task.id} has a negative runtime, {task.run_ms} ms")
        found[task.id] = task
    if not found:
        raise WorkflowError(f"workflow {name} has no task")
    for task in found.values():
        for parent in task.parents:
            if parent not in found:
                raise WorkflowError(f"workflow {name}: task {task.id} waits for {parent}, which is not in it")
    waits = {task.id: len(set(task.parents)) for task in found.values()}
    children: dict[str, list[str]] = {}
    for task in found.values():
        for parent in dict.fromkeys(task.parents):
            children.setdefault(parent, []).append(task.id)
    out = [task_id for task_id, count in waits.items() if not count]
    for task_id in out:
        for child in children.get(task_id, ()):
            waits[child] -= 1
            if not waits[child]:
                out.append(child)
    if len(out) < len(found):
        stuck = next(task_id for task_id, count in waits.items() if count)
        raise WorkflowError(f"workflow {name} has a cycle; task {stuck} is in it or behind it")
    return Workflow(name=name, tasks=tuple(found[task_id] for task_id in out))


def read(path: Path) -> Workflow:
    """A WfFormat file, plain or gzipped. Raises WorkflowError naming the file and what is wrong."""
    try:
        raw = path.read_bytes()
        said = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
        return parse(path.name.removesuffix(".gz").removesuffix(".json"), said)
    except OSError as error:
        raise WorkflowError(f"workflow {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise WorkflowError(f"workflow {path} is not JSON: {error}") from error


def parse(name: str, said: Mapping[str, Any]) -> Workflow:
    """A workflow of a WfFormat document; dependencies are those that parents or children say."""
    try:
        specified = said["workflow"]["specification"]["tasks"]
        executed = {task["id"]: task for task in said["workflow"]["execution"]["tasks"]}
        names = {task["id"]: str(task["name"]) for task in specified}
        parents: dict[str, list[str]] = {task["id"]: list(task.get("parents") or ()) for task in specified}
        said_children = [(task["id"], child) for task in specified for child in task.get("children") or ()]
    except (KeyError, TypeError) as error:
        raise WorkflowError(f"workflow {name} is not WfFormat 1.5: {error!r} is missing or of another kind") from error
    for parent, child in said_children:
        if child not in parents:
            raise WorkflowError(f"workflow {name}: task {parent} is followed by {child}, which is not in it")
        if parent not in parents[child]:
            parents[child].append(parent)
    classes = _classes(names.values())
    return ordered(
        name,
        (_task(name, task_id, classes[names[task_id]], parents[task_id], executed.get(task_id)) for task_id in parents),
    )


def _task(
    workflow: str, task_id: str, task_class: str, parents: list[str], run: Mapping[str, Any] | None
) -> WorkflowTask:
    if run is None or run.get("runtimeInSeconds") is None:
        raise WorkflowError(f"workflow {workflow}: task {task_id} has no runtimeInSeconds")
    seconds = run["runtimeInSeconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds) or seconds < 0:
        raise WorkflowError(
            f"workflow {workflow}: task {task_id} has runtimeInSeconds {seconds!r}; a finite time, not negative"
        )
    memory = run.get("memoryInBytes")
    needs = Needs(
        interruptible=True,
        cpus=max(1, round(run.get("coreCount") or 1)),
        memory_mib=math.ceil(memory / 2**20) if memory else None,
    )
    return WorkflowTask(
        id=task_id, task_class=task_class, run_ms=max(1, round(seconds * 1000)), parents=tuple(dict.fromkeys(parents)),
        needs=needs
    )  # fmt: skip


def _classes(names: Iterable[str]) -> dict[str, str]:
    """Names to classes: without the number of the instance; a name that stays alone is cut at its first underscore."""
    cut = {name: _INSTANCE.sub("", name) or name for name in names}
    sizes = Counter(cut.values())
    heads = Counter(name.split("_")[0] for name in sizes)
    return {
        name: found if sizes[found] > 1 or "." in found or heads[found.split("_")[0]] < 3 else found.split("_")[0]
        for name, found in cut.items()
    }


def with_gpu_stage(
    workflow: Workflow, task_class: str, model: str, factor: float, checkpoint_ms: int | None
) -> Workflow:
    """The workflow with one class made a GPU stage: `factor` times faster on that model, checkpointed. To be stated."""
    if not any(task.task_class == task_class for task in workflow.tasks):
        known = ", ".join(sorted({task.task_class for task in workflow.tasks}))
        raise WorkflowError(f"workflow {workflow.name} has no class {task_class}; it has {known}")
    return replace(
        workflow,
        tasks=tuple(
            replace(
                task,
                needs=replace(task.needs, gpu="helps", gpus=1, checkpoint_ms=checkpoint_ms),
                faster=((model, factor),),
            )
            if task.task_class == task_class
            else task
            for task in workflow.tasks
        ),
    )
