"""What a Dask worker's process is told by who started it, read from its environment here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent.errors import SettingError


class WorkerSettings(BaseSettings):
    """Each is `ORC_NAME` in the environment of the worker."""

    model_config = SettingsConfigDict(env_prefix="ORC_", extra="ignore", frozen=True)

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
    try:
        return WorkerSettings()
    except ValidationError as error:
        raise SettingError(
            "\n".join(f"ORC_{str(e['loc'][0]).upper()}={e['input']!r}: {e['msg']}" for e in error.errors())
        ) from error
