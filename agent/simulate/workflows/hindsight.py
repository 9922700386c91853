"""The best schedule that can be built in hindsight: the planner told the true future, improved by local search.

A bound says what nobody can beat; this says what could have been done. The search changes one thing at a time (how much
slack goes into queues, how much is kept for losses, an earlier goal for one job) and keeps what costs less and still
meets every deadline. Whatever else is known to be feasible, an online run for one, may be handed in and is beaten or
kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from agent.planner.plan import plan
from agent.simulate.workflows.setting import SimulationResult, SimulationSetting
from agent.simulate.workflows.simulation import simulate
from agent.simulate.workflows.workflow import Job
from agent.simulate.workflows.world import Supply

#: what the search tries: hundredths of the slack for queues; losses that slack is kept for
QUEUES, RESERVES = (0, 20, 40, 50, 60, 70, 80, 90, 100), (0.0, 0.5, 1.0, 2.0)


def hindsight(
    jobs: Sequence[Job],
    supplies: Sequence[Supply],
    setting: SimulationSetting,
    rounds: int,
    known: Iterable[SimulationResult] = (),
) -> SimulationResult:
    """The cheapest schedule found that misses no deadline; the cheapest at all when there is none.

    Args:
        rounds: simulations spent on the search.
        known: results of the same jobs and world, of any policy.
    """
    random = Random(setting.seed)
    knows = replace(setting, clairvoyant=True)
    best = min(known, key=_value, default=None)
    state: tuple[int, float, tuple[int, ...]] = (
        setting.policy.queue_percent,
        setting.policy.reserve_losses,
        (100,) * len(jobs),
    )
    mine: SimulationResult | None = None
    for turn in range(rounds):
        trial = state if not turn else _neighbour(state, random)
        made = _built(jobs, supplies, knows, trial)
        if mine is None or _value(made) <= _value(mine):
            mine, state = made, trial
    if mine is not None and (best is None or _value(mine) < _value(best)):
        best = mine
    if best is None:
        raise ValueError("neither a known result nor a round to search in")
    return best


def _value(result: SimulationResult) -> tuple[int, int]:
    return len(result.missed), result.usd_micros


def _neighbour(state: tuple[int, float, tuple[int, ...]], random: Random) -> tuple[int, float, tuple[int, ...]]:
    queue, reserve, goals = state
    what = random.randrange(3)
    if what == 0:
        return random.choice(QUEUES), reserve, goals
    if what == 1:
        return queue, random.choice(RESERVES), goals
    at = random.randrange(len(goals))
    goal = random.choice((70, 80, 90, 100))
    return queue, reserve, (*goals[:at], goal, *goals[at + 1 :])


def _built(
    jobs: Sequence[Job],
    supplies: Sequence[Supply],
    setting: SimulationSetting,
    trial: tuple[int, float, tuple[int, ...]],
) -> SimulationResult:
    queue, reserve, goals = trial
    aimed = [
        job
        if job.deadline_ms is None
        else replace(job, deadline_ms=job.arrives_ms + (job.deadline_ms - job.arrives_ms) * goal // 100)
        for job, goal in zip(jobs, goals, strict=True)
    ]
    policy = replace(setting.policy, queue_percent=queue, reserve_losses=reserve)
    made = simulate(aimed, supplies, plan, replace(setting, policy=policy))
    return replace(made, deadlines={job.name: job.deadline_ms for job in jobs})
