"""What is left of one run's graph: longest paths and work, kept up to date task by task.

A node's *tail* is the longest path behind it, from its end to the end of the run; its *rank* is its own time and its
tail (the upward rank of HEFT, Topcuoglu 2002). Ends and new estimates change few of them: a change climbs to the
parents only as far as it changes anything, so that an event costs about as much as it matters, not as the graph is
large. `recomputed` builds the same from nothing, for comparison.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable


class Graph:
    """Tasks of one run that are known; parents before children, so that no cycle can be said."""

    def __init__(self) -> None:
        self._at: dict[Hashable, int] = {}
        self._keys: list[Hashable] = []
        self._ms: list[int] = []
        #: what follows a task besides its known children, ms: learned of its class
        self._beyond: list[int] = []
        self._tail: list[int] = []
        self._parents: list[tuple[int, ...]] = []
        self._children: list[list[int]] = []
        #: unfinished parents; -1: the task has ended
        self._waits: list[int] = []
        self._frontier: list[tuple[int, int]] = []
        #: expected time of all tasks that have not ended, ms
        self.work_ms = 0
        #: tasks that have not ended
        self.tasks = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._at

    def add(self, key: Hashable, ms: int, parents: Iterable[Hashable] = (), beyond_ms: int = 0) -> None:
        """One task; see `extend`."""
        self.extend([(key, ms, parents, beyond_ms)])

    def extend(self, tasks: Iterable[tuple[Hashable, int, Iterable[Hashable], int]]) -> None:
        """Tasks (key, ms, parents, ms beyond its known children), each behind its parents; a known key is left.

        Parents that are not known have ended before anybody looked. A batch is settled in one pass.
        """
        first = len(self._keys)
        for key, ms, parents, beyond_ms in tasks:
            if key in self._at:
                continue
            at = len(self._keys)
            known = tuple(dict.fromkeys(self._at[parent] for parent in parents if parent in self._at))
            self._at[key] = at
            self._keys.append(key)
            self._ms.append(ms)
            self._beyond.append(beyond_ms)
            self._tail.append(beyond_ms)
            self._parents.append(known)
            self._children.append([])
            self._waits.append(sum(self._waits[parent] >= 0 for parent in known))
            self.work_ms += ms
            self.tasks += 1
            for parent in known:
                self._children[parent].append(at)
        lifted: dict[int, int] = {}
        for at in reversed(range(first, len(self._keys))):
            self._tail[at] = self._longest(at)
            self._surface(at)
            for parent in self._parents[at]:
                if parent < first:
                    lifted[parent] = max(lifted.get(parent, 0), self._ms[at] + self._tail[at])
        # the first child takes the place of what was thought to follow
        self._climb(
            [(-at, self._tail[at] if self._children[at][0] >= first else -1, rank) for at, rank in lifted.items()]
        )

    def weigh(self, key: Hashable, ms: int) -> None:
        """A task is now expected to take so long."""
        at = self._at.get(key)
        if at is None or self._ms[at] == ms:
            return
        if self._waits[at] >= 0:
            self.work_ms += ms - self._ms[at]
        old, self._ms[at] = self._ms[at] + self._tail[at], ms
        self._surface(at)
        self._climb([(-parent, old, ms + self._tail[at]) for parent in self._parents[at]])

    def end(self, key: Hashable) -> list[Hashable]:
        """A task has ended; the children that are ready now. Twice is once."""
        at = self._at.get(key)
        if at is None or self._waits[at] < 0:
            return []
        self._waits[at] = -1
        self.work_ms -= self._ms[at]
        self.tasks -= 1
        ready = []
        for child in self._children[at]:
            if self._waits[child] > 0:
                self._waits[child] -= 1
                if not self._waits[child]:
                    ready.append(self._keys[child])
                    self._surface(child)
        return ready

    def again(self, key: Hashable) -> None:
        """An ended task's result was lost: it is to be done again."""
        at = self._at.get(key)
        if at is None or self._waits[at] >= 0:
            return
        self._waits[at] = sum(self._waits[parent] >= 0 for parent in self._parents[at])
        self.work_ms += self._ms[at]
        self.tasks += 1
        self._surface(at)
        for child in self._children[at]:
            if self._waits[child] >= 0:
                self._waits[child] += 1

    def keys(self) -> tuple[Hashable, ...]:
        """Every task, parents first."""
        return tuple(self._keys)

    def tail_ms(self, key: Hashable) -> int:
        """Longest path behind a task, ms; 0 when it is not known."""
        at = self._at.get(key)
        return 0 if at is None else self._tail[at]

    def ms(self, key: Hashable) -> int:
        """Expected time of a task, ms; 0 when it is not known."""
        at = self._at.get(key)
        return 0 if at is None else self._ms[at]

    @property
    def path_ms(self) -> int:
        """Longest path through tasks that have not ended, ms; what already runs counts whole."""
        while self._frontier:
            rank, at = self._frontier[0]
            if not self._waits[at] and -rank == self._ms[at] + self._tail[at]:
                return -rank
            heapq.heappop(self._frontier)
        return 0

    def recomputed(self) -> Graph:
        """The same graph, every figure computed anew in one pass."""
        new = Graph()
        new._at, new._keys, new._ms, new._beyond = dict(self._at), list(self._keys), list(self._ms), list(self._beyond)
        new._parents, new._children = list(self._parents), [list(c) for c in self._children]
        new._tail, ended = [0] * len(self._keys), [waits < 0 for waits in self._waits]
        new._waits = [-1] * len(self._keys)
        for at in reversed(range(len(self._keys))):
            new._tail[at] = new._longest(at)
            if not ended[at]:
                new._waits[at] = sum(not ended[parent] for parent in new._parents[at])
                new.work_ms += new._ms[at]
                new.tasks += 1
                if not new._waits[at]:
                    new._frontier.append((-(new._ms[at] + new._tail[at]), at))
        heapq.heapify(new._frontier)
        return new

    def figures(self) -> tuple[int, int, int, tuple[int, ...]]:
        """Path, work, tasks left, and every tail: to compare two graphs by."""
        return self.path_ms, self.work_ms, self.tasks, tuple(self._tail)

    def _longest(self, at: int) -> int:
        found = self._children[at]
        return max(self._ms[child] + self._tail[child] for child in found) if found else self._beyond[at]

    def _surface(self, at: int) -> None:
        """A task of the frontier under its present rank."""
        if not self._waits[at]:
            heapq.heappush(self._frontier, (-(self._ms[at] + self._tail[at]), at))

    def _climb(self, changes: list[tuple[int, int, int]]) -> None:
        """Take changes of ranks up to the parents: (minus the parent, a child's old rank, its new one).

        Later nodes come before earlier ones, so that each is settled once; only a parent whose longest child became
        shorter must look at all of its children.
        """
        heapq.heapify(changes)
        while changes:
            at, best, lower = -changes[0][0], -1, False
            while changes and -changes[0][0] == at:
                _, old, new = heapq.heappop(changes)
                best, lower = max(best, new), lower or (old == self._tail[at] and new < old)
            tail = best if best >= self._tail[at] else self._longest(at) if lower else self._tail[at]
            if tail != self._tail[at]:
                old, self._tail[at] = self._ms[at] + self._tail[at], tail
                self._surface(at)
                for parent in self._parents[at]:
                    heapq.heappush(changes, (-parent, old, self._ms[at] + tail))
