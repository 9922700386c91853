"""What people ask of the scheduler: figures, and why tasks wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.scheduler.binding import Binding
from agent.scheduler.demand import Demand
from agent.scheduler.fence import Fence
from agent.scheduler.host import GovernedTask, Host
from agent.scheduler.nested_tasks import NestedTasks
from agent.scheduler.worker_registry import WorkerRegistry

#: inputs of a waiting task that are named
NAMED = 3


class SchedulerStatus:
    """Reads what the parts count, and what the governor has said last. Changes nothing."""

    def __init__(
        self, host: Host, fence: Fence, binding: Binding, nested: NestedTasks, demand: Demand, registry: WorkerRegistry
    ) -> None:
        self.host, self.fence, self.binding = host, fence, binding
        self.nested, self.demand, self.registry = nested, demand, registry
        #: what the governor shows on the dashboard
        self.figures: Mapping[str, Any] | None = None
        #: why nothing is governed here
        self.degraded: list[str] = []

    def answer(self, flow_run: str, most: int, keys: Sequence[Any]) -> dict[str, Any]:
        """Figures, the tasks of a run that wait for their inputs, and why those of some keys are held."""
        return {
            "mode": self.host.mode,
            "degraded": self.degraded,
            "epoch": self.fence.epoch,
            "longest_ms": self.host.longest_ms,
            "bound": self.binding.bound,
            "waits_ms": list(self.binding.waits_ms)[-most:],
            "tasks": len(self.host.tasks),
            "adaptive": self.demand.adaptive,
            "broken": self.registry.broken,
            "waiting": [] if keys else self._waiting(flow_run, most),
            "held": self._why_held(keys) if keys else {},
            "runtimes_ms": (self.figures or {}).get("runtimes_ms", {}),
        }

    def shown(self) -> dict[str, Any]:
        """What the page on the dashboard shows."""
        return {
            "mode": self.host.mode,
            "epoch": self.fence.epoch,
            "bound": self.binding.bound,
            "governor": self.figures,
        }

    def _waiting(self, flow_run: str, most: int) -> list[tuple[str, int, list[str], int]]:
        """Key, since when, some of the inputs it waits for, and how many those are."""
        out: list[tuple[str, int, list[str], int]] = []
        for task in self.host.tasks.values():
            if len(out) >= most:
                break
            if (ts := self._waiting_on(task)) is not None and self.host.specs.flow_run(task.spec) == flow_run:
                inputs = list(ts.waiting_on or ())
                out.append((str(task.key), task.since_ms, [str(d.key) for d in inputs[:NAMED]], len(inputs)))
        return out

    def _waiting_on(self, task: GovernedTask) -> Any:
        """Dask's task, where it waits for its inputs."""
        if task.on is not None or task.ready:
            return None
        ts = self.host.scheduler.tasks.get(task.key)
        return ts if ts is not None and ts.state == "waiting" else None

    def _why_held(self, keys: Sequence[Any]) -> dict[Any, tuple[str, str]]:
        """Key → reason and text, of those that are ready and wait, as the governor has said last."""
        holds = {(hold["flow_run"], hold["task"]): hold for hold in (self.figures or {}).get("held", ())}
        out: dict[Any, tuple[str, str]] = {}
        for key in keys:
            task = self.host.tasks.get(key)
            if task is None or not task.ready:
                continue
            of = self.host.specs.flow_run(task.spec), self.host.specs.name(task.spec)
            if (hold := holds.get(of)) is not None:
                out[key] = hold["reason"], f"held for {hold['reason']}: {hold['why']}; goes on with {hold['release']}"
        return out
