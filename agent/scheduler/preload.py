"""`dask scheduler --preload agent.scheduler.preload`: a governed scheduler from its start."""

from __future__ import annotations

import os
from typing import Any

from agent.scheduler.plugin import Extension


async def dask_setup(scheduler: Any) -> None:
    """Dask's hook for preloaded modules."""
    extension = Extension(
        mode=os.environ.get("ORC_MODE", "govern"),
        allow_untested=os.environ.get("ORC_ALLOW_UNTESTED", "").lower() in ("1", "true"),
    )
    await extension.start(scheduler)
    scheduler.add_plugin(extension, name=extension.name)
