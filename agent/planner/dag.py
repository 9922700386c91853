"""What is left of one run's graph: longest paths and work, kept up to date task by task.

A node's *tail* is the longest path behind it, from its end to the end of the run, and its *rank* its own time and its
tail (the upward rank of HEFT, Topcuoglu 2002), on as many workers as it takes: of a task's children the longest goes on
where the task ran, and the others may need a worker that is started only then, so the tail is
max(first rank, start-up + second rank). An event touches what it changes: an end only the children, a new estimate only
the ancestors whose tails it moves. `recomputed` builds the same from nothing, for comparison.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Iterator


class TaskGraph:
    """Tasks of one run that are known; parents before children, so that no cycle can be said."""

    def __init__(self, startup_ms: int = 0) -> None:
        self.startup_ms = startup_ms
        self._at: dict[Hashable, int] = {}
        self._keys: list[Hashable] = []
        self._ms: list[int] = []
        #: what follows a task that has no known child, ms: learned of its class
        self._beyond: list[int] = []
        #: the two highest ranks among a task's children; -1: there is none
        self._first: list[int] = []
        self._second: list[int] = []
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

    def __iter__(self) -> Iterator[Hashable]:
        """Keys, parents first."""
        return iter(self._keys)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._at

    def add(self, key: Hashable, ms: int, parents: Iterable[Hashable] = (), beyond_ms: int = 0) -> None:
        """One task; see `extend`."""
        self.extend([(key, ms, parents, beyond_ms)])

    def extend(self, tasks: Iterable[tuple[Hashable, int, Iterable[Hashable], int]]) -> None:
        """Tasks (key, ms, parents, ms that follow a task without known children), each behind its parents.

        A known key is left as it is; parents that are not known have ended before anybody looked. A batch is settled in
        one pass.
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
            self._first.append(-1)
            self._second.append(-1)
            self._parents.append(known)
            self._children.append([])
            self._waits.append(sum(self._waits[parent] >= 0 for parent in known))
            self.work_ms += ms
            self.tasks += 1
            for parent in known:
                self._children[parent].append(at)
        moved: dict[int, int] = {}
        for at in reversed(range(first, len(self._keys))):
            self._surface(at)
            rank = self._rank(at)
            for parent in self._parents[at]:
                if parent < first:
                    moved.setdefault(parent, self._tail(parent))
                self._joined(parent, rank)
        self._climb([up for at, old in moved.items() if self._moved(at, old) for up in self._parents[at]])

    def weigh(self, keys: Iterable[Hashable], ms: int) -> None:
        """Tasks are now expected to take so long; unknown ones are left out."""
        touched: set[int] = set()
        for key in keys:
            at = self._at.get(key)
            if at is None or self._ms[at] == ms:
                continue
            if self._waits[at] >= 0:
                self.work_ms += ms - self._ms[at]
            self._ms[at] = ms
            self._surface(at)
            touched.update(self._parents[at])
        self._climb(touched)

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

    def tail_ms(self, key: Hashable) -> int:
        """Longest path behind a task, ms; 0 when it is not known."""
        at = self._at.get(key)
        return 0 if at is None else self._tail(at)

    @property
    def path_ms(self) -> int:
        """Longest path through tasks that have not ended, ms; what already runs counts whole."""
        while self._frontier:
            rank, at = self._frontier[0]
            if not self._waits[at] and -rank == self._rank(at):
                return -rank
            heapq.heappop(self._frontier)
        return 0

    def recomputed(self) -> TaskGraph:
        """The same graph, every figure computed anew in one pass."""
        new = TaskGraph(self.startup_ms)
        new._at, new._keys, new._ms, new._beyond = dict(self._at), list(self._keys), list(self._ms), list(self._beyond)
        new._parents, new._children = list(self._parents), [list(c) for c in self._children]
        new._first, new._second = [-1] * len(self), [-1] * len(self)
        ended = [waits < 0 for waits in self._waits]
        new._waits = [-1] * len(self)
        for at in reversed(range(len(self))):
            new._settle(at)
            if not ended[at]:
                new._waits[at] = sum(not ended[parent] for parent in new._parents[at])
                new.work_ms += new._ms[at]
                new.tasks += 1
                new._surface(at)
        return new

    def figures(self) -> tuple[int, int, int, tuple[int, ...]]:
        """Path, work, tasks left, and every tail: to compare two graphs by."""
        return self.path_ms, self.work_ms, self.tasks, tuple(self._tail(at) for at in range(len(self)))

    # ------------------------------------------------------------------ ranks
    def _tail(self, at: int) -> int:
        if self._first[at] < 0:
            return self._beyond[at]
        return max(self._first[at], self._second[at] + self.startup_ms if self._second[at] >= 0 else 0)

    def _rank(self, at: int) -> int:
        return self._ms[at] + self._tail(at)

    def _joined(self, parent: int, rank: int) -> None:
        """A new child, so that a fan of any width costs the same a child."""
        if rank > self._first[parent]:
            self._first[parent], self._second[parent] = rank, self._first[parent]
        elif rank > self._second[parent]:
            self._second[parent] = rank

    def _settle(self, at: int) -> None:
        """The two highest ranks among all children."""
        first = second = -1
        for child in self._children[at]:
            rank = self._rank(child)
            if rank > first:
                first, second = rank, first
            elif rank > second:
                second = rank
        self._first[at], self._second[at] = first, second

    def _surface(self, at: int) -> None:
        """A task of the frontier under its present rank."""
        if not self._waits[at]:
            heapq.heappush(self._frontier, (-self._rank(at), at))

    def _moved(self, at: int, old_tail: int) -> bool:
        if self._tail(at) == old_tail:
            return False
        self._surface(at)
        return True

    def _climb(self, nodes: Iterable[int]) -> None:
        """Settle these nodes and whatever above them changes by it, later ones first, each once."""
        heap = [-at for at in set(nodes)]
        heapq.heapify(heap)
        last = -1
        while heap:
            at = -heapq.heappop(heap)
            if at == last:
                continue
            last, old = at, self._tail(at)
            self._settle(at)
            if self._moved(at, old):
                for parent in self._parents[at]:
                    heapq.heappush(heap, -parent)
