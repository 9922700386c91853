"""Ready tasks by placement group. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.state.tasks import ReadyTask


class Waiting:
    """Tasks that are ready and not bound, each in one group, in the order in which they became ready."""

    def __init__(self) -> None:
        self.by_group: dict[str, dict[Any, ReadyTask]] = {}
        self.group_of: dict[Any, str] = {}

    def __bool__(self) -> bool:
        return bool(self.by_group)

    def __len__(self) -> int:
        return len(self.group_of)

    def put(self, task: ReadyTask, group: str) -> None:
        """A task waits in a group; where it waited before, it is moved."""
        self.drop(task.key)
        self.by_group.setdefault(group, {})[task.key] = task
        self.group_of[task.key] = group

    def drop(self, key: Any) -> ReadyTask | None:
        """A task no longer waits."""
        group = self.group_of.pop(key, None)
        if group is None:
            return None
        tasks = self.by_group[group]
        task = tasks.pop(key)
        if not tasks:
            del self.by_group[group]
        return task

    def first(self, group: str, count: int, skip: int = 0) -> list[ReadyTask]:
        """The group's tasks by Dask's priority and then by age, so many, behind so many."""
        tasks = list(self.by_group[group].values())
        if tasks[0].dask_priority:  # those of a group are of one size
            tasks.sort(key=lambda task: -task.dask_priority)
        return tasks[skip : skip + count]

    def tasks(self, group: str) -> Iterable[ReadyTask]:
        """All tasks of a group; none where it is not known."""
        return self.by_group.get(group, {}).values()

    def regroup(self, group_of: Callable[[ReadyTask], str]) -> Mapping[str, frozenset[str]]:
        """Put every task into the group it belongs to now. New group → the other groups its tasks were in."""
        before, moved = dict(self.by_group), dict[str, set[str]]()
        self.clear()
        for old, tasks in before.items():
            for task in tasks.values():
                new = group_of(task)
                self.by_group.setdefault(new, {})[task.key] = task
                self.group_of[task.key] = new
                if new != old:
                    moved.setdefault(new, set()).add(old)
        return {new: frozenset(olds) for new, olds in moved.items()}

    def clear(self) -> None:
        """Nothing waits."""
        self.by_group.clear()
        self.group_of.clear()

    def faults(self) -> list[str]:
        """What does not agree with itself: tests ask after each event."""
        listed = {key: group for group, tasks in self.by_group.items() for key in tasks}
        out = [
            f"{key!r} waits in {listed.get(key)} and is said to in {group}"
            for key, group in self.group_of.items()
            if listed.get(key) != group
        ]
        out += [
            f"{key!r} waits in {group} and is not said to" for key, group in listed.items() if key not in self.group_of
        ]
        return out + [f"group {group} is empty" for group, tasks in self.by_group.items() if not tasks]
