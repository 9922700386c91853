"""What is taken on each worker. Dask tests a worker's total supply, never what is free, so the extension counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.model.pools import Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A pool as the extension knows it: who belongs to it and how large its workers are."""

    name: str
    selector: Selector
    cpus: int
    memory_mib: int
    gpus: int
    #: its workers are not taken away
    safe: bool = True

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> Size:
        """From the governor's instruction."""
        chosen = dict(said["selector"])
        chosen["resources"] = tuple((str(k), float(v)) for k, v in chosen.get("resources") or ())
        return cls(
            name=said["name"],
            selector=Selector(**chosen),
            cpus=said["cpus"],
            memory_mib=said["memory_mib"],
            gpus=said["gpus"],
            safe=said.get("safe", True),
        )


@dataclass(slots=True)
class Counts:
    """One worker's capacity and what is bound to it."""

    address: str
    name: str
    pool: str
    slots: int
    cpus: int
    memory_mib: int
    gpus: int
    #: key → (cpus, memory MiB, GPUs)
    bound: dict[Any, tuple[int, int, int]] = field(default_factory=dict)
    #: bound tasks that wait for inner work and lent their slot
    lent: set[Any] = field(default_factory=set)
    #: inner tasks sent to it
    inner: int = 0
    #: tasks and actors on it that no governor placed, and the slots they take
    others: int = 0
    other_slots: int = 0
    #: gets no more work
    draining: bool = False
    #: Dask sends it nothing now: its memory is full, or it is closing
    paused: bool = False

    @property
    def used(self) -> int:
        """Slots that are taken, or promised to what was sent ahead."""
        return len(self.bound) - len(self.lent) + self.other_slots

    def free(self) -> tuple[int, int, int, int]:
        """Free slots (negative when work was sent ahead), cpus, MiB and GPUs, with the largest tasks taken as the running ones.

        A task that waits for work of its own lends its slot, cpus and GPUs. Its memory stays taken, but not where nothing
        else runs: counted there too, it and the work it waits for would wait for each other.
        """
        loads = [load for key, load in self.bound.items() if key not in self.lent]
        used = len(loads)
        if used > self.slots:
            sums = [sum(sorted((load[i] for load in loads), reverse=True)[: self.slots]) for i in range(3)]
        else:
            sums = [sum(load[i] for load in loads) for i in range(3)]
        waiting = sum(self.bound[key][1] for key in self.lent if key in self.bound) if used else 0
        return (
            self.slots - used - self.other_slots,
            self.cpus - sums[0],
            self.memory_mib - sums[1] - waiting,
            self.gpus - sums[2],
        )

    def fits(self, load: tuple[int, int, int], ahead: int) -> bool:
        """Whether a task of that load may be sent now; `ahead` tasks a slot may wait on the worker."""
        used = self.used
        if ahead:
            return used < self.slots * (1 + ahead)
        if used >= self.slots:
            return False
        _, cpus, memory, gpus = self.free()
        return load[0] <= cpus and load[1] <= memory and load[2] <= gpus
