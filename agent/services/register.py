"""Register the work pool and the deployments of prefect.yaml, in a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists

from agent.settings import load


def main() -> None:
    """Exit code of `prefect deploy`; 0 when there is no prefect.yaml."""
    settings = load()
    with get_client(sync_client=True) as client:
        with contextlib.suppress(ObjectAlreadyExists):
            client.create_work_pool(
                WorkPoolCreate(
                    name=settings.work_pool, type="process", description="flow runs as processes of this machine"
                )
            )
    if Path("prefect.yaml").exists():
        sys.exit(
            subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], check=False).returncode
        )


if __name__ == "__main__":
    main()
