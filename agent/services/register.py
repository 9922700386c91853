"""Register the work pool and the deployments of prefect.yaml, in a process of its own."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

from agent.settings import load


def main() -> None:
    """Exit code of `prefect deploy`; 0 when there is no prefect.yaml."""
    settings = load()
    with get_client(sync_client=True) as client:
        work_pool(client, settings.prefect.work_pool)
    if Path("prefect.yaml").exists():
        sys.exit(
            subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], check=False).returncode
        )


def work_pool(client: SyncPrefectClient, name: str) -> None:
    """Make it, or take the command out of the template of the one that is there."""
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        template = without_command(ProcessWorker.get_default_base_job_template())
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type="process",
                description="flow runs as processes of this machine",
                base_job_template=template,
            )
        )
        return
    if (template := without_command(found.base_job_template)) != found.base_job_template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


def without_command(template: dict[str, Any]) -> dict[str, Any]:
    """A base job template whose runs cannot bring a command of their own: they run their flow and nothing else."""
    out = copy.deepcopy(template)
    out.get("job_configuration", {}).pop("command", None)
    out.get("variables", {}).get("properties", {}).pop("command", None)
    return out


if __name__ == "__main__":
    main()
