"""What a Dask worker's process is told by who started it, read from its environment here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from agent.settings.environment import checked, spoken
from agent.settings.sections import Section


class WorkerSettings(Section):
    """Each is `ORC_NAME` in the environment of the worker."""

    notice: str = Field(
        "",
        description="where a notice is looked for that the worker will be taken away: "
        "aws, gcp, a URL, or a file that appears",
    )
    grace: Annotated[float, Field(ge=0)] = Field(
        28.0, description="seconds from SIGTERM to the end: what Kubernetes gives, less two for the farewell"
    )
    worker_pool: str = Field("", description="the pool that pays for the worker; set by its provider")
    worker_ended: Path | None = Field(
        None, description="a file that says, when it is there, that the worker has ended; set by its provider"
    )


def load() -> WorkerSettings:
    """The settings. Raises SettingError naming each wrong one and why."""
    variables = {WorkerSettings.variable(name): name for name in WorkerSettings.model_fields}
    values = {variables[variable]: value for variable, value in spoken(variables).items()}
    return checked(WorkerSettings, values, {(name,): variable for variable, name in variables.items()})
