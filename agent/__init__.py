"""ORC: each task of your Prefect flows on the cheapest Dask worker that still meets its deadline and budget.

What a user imports: `needs`, `GovernedTaskRunner`, `checkpoint` and `lineage`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.runner.needs import needs
    from agent.runner.task_runner import GovernedTaskRunner
    from agent.worker import checkpoint, lineage

__all__ = ["GovernedTaskRunner", "checkpoint", "lineage", "needs"]


def __getattr__(name: str) -> Any:
    # on demand: the governor and the extension import `agent` too, and must not import Prefect
    if name == "needs":
        from agent.runner.needs import needs

        return needs
    if name == "GovernedTaskRunner":
        from agent.runner.task_runner import GovernedTaskRunner

        return GovernedTaskRunner
    if name in ("checkpoint", "lineage"):
        return importlib.import_module(f"agent.worker.{name}")
    raise AttributeError(f"module 'agent' has no attribute {name!r}")
