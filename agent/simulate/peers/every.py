"""All peers for workflows, made anew for each run: some remember."""

from __future__ import annotations

from collections.abc import Callable

from agent.simulate.peers.fallback import SpotFallback
from agent.simulate.peers.greedy import Greedy
from agent.simulate.peers.on_demand import OnDemand
from agent.simulate.peers.partial_paths import PartialCriticalPaths
from agent.simulate.peers.ray import Ray
from agent.simulate.peers.retries import FlyteInterruptible, SpotRetries
from agent.simulate.peers.uniform import UniformProgress, UniformTaskDeadlines
from agent.simulate.run import Planner

#: name → a new one
WORKFLOW_PEERS: dict[str, Callable[[], Planner]] = {
    "on-demand": OnDemand,
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
