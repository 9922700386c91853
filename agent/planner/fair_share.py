"""Whose turn it is: teams share the workers by weight, the runs of a team alike, and nobody waits for ever.

Within a priority class the next turn goes to the team that has the fewest slots for its weight, and there to the run
that has the fewest (weighted max-min fairness: what one leaves, the others get). A group that has waited is taken for a
class higher after `aging_ms`, so that a stream of urgent work cannot starve the rest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from agent.model.needs import PRIORITY_RANK
from agent.model.snapshot import Group, Policy, Usage


def rank(group: Group, policy: Policy, now_ms: int) -> int:
    """The priority class a group counts as now; 0 comes first."""
    aged = (now_ms - group.since_ms) // policy.aging_ms if policy.aging_ms else 0
    return max(0, PRIORITY_RANK[group.needs.priority] - max(0, aged))


class FairShare:
    """Groups in line, by class, team and run.

    Args:
        groups: in the order in which a run's own are to be taken.
        usage: slots that are taken already.
        rank: the class of a group.
    """

    def __init__(
        self, groups: Iterable[Group], usage: Sequence[Usage], policy: Policy, rank: Callable[[Group], int]
    ) -> None:
        self._weights = dict(policy.shares)
        self._team: dict[str, int] = {}
        self._run: dict[tuple[str, str], int] = {}
        for used in usage:
            self._took(used.team, used.root_run, used.slots)
        #: class → team → run → its groups
        self._line: dict[int, dict[str, dict[str, deque[Group]]]] = {}
        for group in groups:
            teams = self._line.setdefault(rank(group), {})
            teams.setdefault(group.team, {}).setdefault(group.root_run, deque()).append(group)

    def next(self) -> Group | None:
        """The group whose turn it is; None when all are through."""
        if not self._line:
            return None
        teams = self._line[min(self._line)]
        team = min(teams, key=lambda name: (self._team.get(name, 0) / self._weights.get(name, 1), name))
        runs = teams[team]
        return runs[min(runs, key=lambda name: (self._run.get((team, name), 0), name))][0]

    def took(self, group: Group, slots: int) -> None:
        """The group was given slots."""
        self._took(group.team, group.root_run, slots)

    def _took(self, team: str, run: str, slots: int) -> None:
        self._team[team] = self._team.get(team, 0) + slots
        self._run[team, run] = self._run.get((team, run), 0) + slots

    def through(self, group: Group) -> None:
        """Nothing is left of the group whose turn it was."""
        first = min(self._line)
        teams = self._line[first]
        runs = teams[group.team]
        runs[group.root_run].popleft()
        if not runs[group.root_run]:
            del runs[group.root_run]
        if not runs:
            del teams[group.team]
        if not teams:
            del self._line[first]
