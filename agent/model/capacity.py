"""What a task takes, what a worker has, and whether the one fits on the other: for planner, governor and scheduler
alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.model.pools import Selector


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one task takes of a worker, beside a slot."""

    cpus: int = 0
    memory_mib: int = 0
    gpus: int = 0


#: of a task whose needs are not known
NO_LOAD = Load()


@dataclass(slots=True)
class FreeCapacity:
    """What is free on one worker."""

    #: free slots; negative where work was sent ahead
    slots: int
    #: slots it has
    total_slots: int
    cpus: int
    memory_mib: int
    gpus: int

    def fits(self, load: Load, ahead: int = 0) -> int:
        """Tasks of this load that it can be sent; `ahead` of them a slot may wait there, where any slot may run one."""
        if ahead:
            return max(0, self.slots + ahead * self.total_slots)
        count = self.slots
        # compared first: nearly always the slots run out before the rest, and this is asked for every worker
        if count * load.cpus > self.cpus:
            count = self.cpus // load.cpus if load.cpus else 0
        if count * load.memory_mib > self.memory_mib:
            count = self.memory_mib // load.memory_mib if load.memory_mib else 0
        if load.gpus and count * load.gpus > self.gpus:
            count = self.gpus // load.gpus
        return max(0, count)

    def take(self, load: Load, count: int) -> None:
        """Count so many tasks of this load as sent."""
        self.slots -= count
        self.cpus -= count * load.cpus
        self.memory_mib -= count * load.memory_mib
        self.gpus -= count * load.gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """A pool as the extension knows it: who belongs to it and how large its workers are."""

    name: str
    selector: Selector
    cpus: int
    memory_mib: int
    gpus: int
    #: its workers are not taken away
    safe: bool = True

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> PoolSpec:
        """From the governor's instruction. Raises KeyError, TypeError or ValueError where it is none."""
        chosen = dict(told["selector"])
        chosen["resources"] = tuple((str(name), float(least)) for name, least in chosen.get("resources") or ())
        return cls(
            name=str(told["name"]),
            selector=Selector(**chosen),
            cpus=int(told["cpus"]),
            memory_mib=int(told["memory_mib"]),
            gpus=int(told["gpus"]),
            safe=bool(told.get("safe", True)),
        )


@dataclass(slots=True, kw_only=True)
class WorkerCapacity:
    """One worker's size and what is taken of it. Dask tests a worker's total supply, never what is free."""

    address: str
    name: str
    pool: str
    slots: int
    cpus: int
    memory_mib: int
    gpus: int
    #: key → what the task takes
    bound: dict[Any, Load] = field(default_factory=dict)
    #: bound tasks that wait for work of their own and lent their slot
    seceded: set[Any] = field(default_factory=set)
    #: tasks of governed tasks that were sent to it
    nested: int = 0
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
        return len(self.bound) - len(self.seceded) + self.other_slots

    def free(self) -> FreeCapacity:
        """What is free, with the largest tasks taken as the running ones where more were sent than run at once.

        A task that waits for work of its own lends its slot, cpus and GPUs. Its memory stays taken, but not where
        nothing else runs: counted there too, it and the work it waits for would wait for each other.
        """
        loads = [load for key, load in self.bound.items() if key not in self.seceded]
        cpus, memory = [load.cpus for load in loads], [load.memory_mib for load in loads]
        gpus = [load.gpus for load in loads]
        if len(loads) > self.slots:
            cpus, memory, gpus = (sorted(each, reverse=True)[: self.slots] for each in (cpus, memory, gpus))
        waiting = sum(self.bound[key].memory_mib for key in self.seceded if key in self.bound) if loads else 0
        return FreeCapacity(
            self.slots - self.used,
            self.slots,
            self.cpus - sum(cpus),
            self.memory_mib - sum(memory) - waiting,
            self.gpus - sum(gpus),
        )

    def fits(self, load: Load, ahead: int = 0) -> bool:
        """Whether a task of that load may be sent now. See `FreeCapacity.fits`."""
        if ahead:
            # what else is free is not asked then
            return FreeCapacity(self.slots - self.used, self.slots, 0, 0, 0).fits(load, ahead) > 0
        return self.used < self.slots and self.free().fits(load) > 0
