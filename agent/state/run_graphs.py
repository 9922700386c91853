"""The graphs of the runs, as far as they were submitted: what is ahead of a deadline. No I/O."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping

from agent.model.snapshot import Run
from agent.planner.dag import TaskGraph
from agent.planner.estimate import PRIOR_LOG_MS
from agent.state.statistics import Statistics
from agent.state.task_specs import TaskSpec

#: paths behind tasks are told apart by this factor, so that tasks of nearly the same urgency are one group
PATH_STEP = 1.05
#: a class's expected time moves the graphs it is in when it changed by more than this factor
NEWS = 1.15


class RunGraphs:
    """Root run → its graph, weighed by what its classes are reckoned to take."""

    def __init__(self, statistics: Statistics, startup_ms: int) -> None:
        """Begin without a run.

        Args:
            startup_ms: of the on-demand workers that a deadline falls back on.
        """
        #: standard deviations of a runtime's logarithm that paths are reckoned with
        self.sigmas = 1.282
        self.of_run: dict[str, TaskGraph] = {}
        self._of_key: dict[Hashable, TaskGraph] = {}
        self._deadlines: dict[str, int | None] = {}
        self._expected: dict[str, int] = {}
        #: task class → root run → its tasks
        self._of_class: dict[str, dict[str, list[Hashable]]] = {}
        self._statistics, self._startup_ms = statistics, startup_ms

    def submitted(self, tasks: Iterable[tuple[Hashable, TaskSpec, Iterable[Hashable]]]) -> None:
        """Tasks that were submitted, ready or not, with the keys of their inputs; inputs first."""
        by_run: dict[str, list[tuple[Hashable, int, Iterable[Hashable], int]]] = {}
        for key, spec, parents in tasks:
            beyond = round(self._statistics.tails.get(spec.task_class, 0.0))
            by_run.setdefault(spec.root_run, []).append((key, self._ms(spec), parents, beyond))
            self._deadlines[spec.root_run] = spec.deadline_ms
            self._of_class.setdefault(spec.task_class, {}).setdefault(spec.root_run, []).append(key)
        for run, found in by_run.items():
            graph = self.of_run.setdefault(run, TaskGraph(self._startup_ms))
            graph.extend(found)
            self._of_key.update((key, graph) for key, *_ in found)

    def again(self, key: Hashable) -> None:
        """A task is to run, or to run again."""
        if (graph := self._of_key.get(key)) is not None:
            graph.again(key)

    def end(self, key: Hashable) -> None:
        """A task has ended for good."""
        if (graph := self._of_key.get(key)) is not None:
            graph.end(key)

    def runs(self, here: Mapping[str, int], ends: Mapping[str, int]) -> tuple[Run, ...]:
        """Runs whose graph is known, in order of their names.

        Args:
            here: root run → its tasks that are ready or bound.
            ends: root run → when the first of its bound tasks is expected to end, ms.
        """
        return tuple(
            Run(
                root_run=name,
                deadline_ms=self._deadlines.get(name),
                work_ms=graph.work_ms,
                path_ms=graph.path_ms,
                tasks=graph.tasks,
                ahead=max(0, graph.tasks - here.get(name, 0)),
                next_ms=ends.get(name),
            )
            for name, graph in sorted(self.of_run.items())
            if graph.tasks
        )

    def forget(self, root_run: str) -> None:
        """A run has ended: its graph is let go."""
        graph = self.of_run.pop(root_run, None)
        self._deadlines.pop(root_run, None)
        if graph is None:
            return
        for key in graph:
            self._of_key.pop(key, None)
        for runs in self._of_class.values():
            runs.pop(root_run, None)

    def tail_ms(self, key: Hashable, spec: TaskSpec) -> int:
        """The longest path behind a task, ms, rounded up to a step; 0 without a deadline, which alone asks for it."""
        graph = self._of_key.get(key)
        if graph is None or spec.deadline_ms is None:
            return 0
        tail = graph.tail_ms(key)
        return tail if tail < 2 else math.ceil(PATH_STEP ** math.ceil(math.log(tail, PATH_STEP) - 1e-9))

    def learned(self, spec: TaskSpec) -> None:
        """A class's expected time has changed: so do the paths it is on."""
        old = self._expected.get(spec.task_class)
        if old is None:
            return
        new = self._reckoned(spec)
        if max(new, old) > NEWS * min(new, old) + 1:
            self._expected[spec.task_class] = new
            for run, keys in self._of_class.get(spec.task_class, {}).items():
                self.of_run[run].weigh(keys, new)

    def _ms(self, spec: TaskSpec) -> int:
        """What a task of a class is reckoned to take on a path, ms."""
        known = self._expected.get(spec.task_class)
        if known is None:
            known = self._expected[spec.task_class] = self._reckoned(spec)
        return known

    def _reckoned(self, spec: TaskSpec) -> int:
        seen = self._statistics.runtimes.get((spec.task_class, ""))
        if seen is not None and seen.n >= 1:
            sigma = math.sqrt(seen.m2 / seen.n)
            return max(1, round(math.exp(seen.mean + self.sigmas * sigma)))
        return spec.needs.runtime_ms or round(math.exp(PRIOR_LOG_MS))
