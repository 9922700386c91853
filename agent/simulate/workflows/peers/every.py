"""All peers for workflows, made anew for each run: some remember."""

from __future__ import annotations

from collections.abc import Callable

from agent.simulate.workflows.peers.fallback import SpotFallback
from agent.simulate.workflows.peers.greedy import Greedy
from agent.simulate.workflows.peers.on_demand import AllOnDemand
from agent.simulate.workflows.peers.partial_paths import PartialCriticalPaths
from agent.simulate.workflows.peers.ray import Ray
from agent.simulate.workflows.peers.retries import FlyteInterruptible, SpotRetries
from agent.simulate.workflows.peers.uniform import UniformProgress, UniformTaskDeadlines
from agent.simulate.workflows.simulation import Planner

#: name → a new one
WORKFLOW_PEERS: dict[str, Callable[[], Planner]] = {
    "on-demand": AllOnDemand,
    "spot-retries": SpotRetries,
    "flyte": FlyteInterruptible,
    "fallback-stay": lambda: SpotFallback(comes_back=False),
    "fallback-back": lambda: SpotFallback(comes_back=True),
    "greedy": Greedy,
    "uniform": UniformProgress,
    "uniform-task": UniformTaskDeadlines,
    "ic-pcp": PartialCriticalPaths,
    "ray": Ray,
}
