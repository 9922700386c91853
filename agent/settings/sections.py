"""Settings that belong together. The name of each variable is made here, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from agent.errors import UnitError
from agent.model import units

if TYPE_CHECKING:
    from agent.model.snapshot import Policy

Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """Settings whose variables' names begin alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    #: what the variables begin with, behind `ORC_`
    PREFIX: ClassVar[str] = ""
    #: fields whose variables are named otherwise, behind `ORC_`
    NAMES: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment's name of a setting."""
        return f"ORC_{cls.NAMES.get(field, cls.PREFIX + field.upper())}"


def duration(value: str) -> str:
    """A validator: it can be read as a duration."""
    try:
        units.duration_ms(value)
    except UnitError as error:
        raise ValueError(str(error)) from error
    return value


class PriceSettings(Section):
    """Where the prices of pools come from that `pools.yaml` gives by name."""

    PREFIX, NAMES = "PRICES_", {"file": "PRICES", "aws_endpoint_url": "AWS_ENDPOINT_URL"}

    file: Path | None = Field(None, description="a file of prices by name; what it does not name is asked of the cloud")
    every: str = Field("5 min", description="how often prices by name are looked up again")
    aws_endpoint_url: str | None = Field(
        None, description="URL at which EC2 is asked for spot prices; by default AWS's own of the zone's region"
    )

    @field_validator("every")
    @classmethod
    def _pause(cls, value: str) -> str:
        if units.duration_ms(duration(value)) < 1000:
            raise ValueError(f"{value!r} is too often; a second at least")
        return value

    @field_validator("aws_endpoint_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://.", value):
            raise ValueError(f"{value!r} is no URL; write https://HOST or http://HOST:PORT")
        return value


class GraphSettings(Section):
    """The knowledge graph."""

    PREFIX = "GRAPH_"

    url: str | None = Field(
        None,
        description="Bolt URL of the knowledge graph (Neo4j); by default the embedded server of `orc up`; off: none",
    )
    user: str = Field("neo4j", description="user of the graph at ORC_GRAPH_URL")
    password: SecretStr = Field(SecretStr(""), description="its password")
    database: str | None = Field(None, description="its database; by default the user's home database")
    heap: str = Field("512m", description="most memory of the embedded graph server's Java heap")

    @field_validator("url")
    @classmethod
    def _bolt(cls, value: str | None) -> str | None:
        if value is not None and value != "off" and not re.match(r"(bolt|neo4j)(\+s|\+ssc)?://", value):
            raise ValueError(f"{value!r} is no Bolt URL; write bolt://HOST:PORT, neo4j://HOST:PORT or off")
        return value

    @field_validator("heap")
    @classmethod
    def _heap(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9][0-9]*[mg]", value):
            raise ValueError(f"{value!r} is no Java heap size; write 512m or 2g")
        return value


class PortSettings(Section):
    """Where the services of `orc up` listen."""

    NAMES = {name: f"{name.upper()}_PORT" for name in ("prefect", "scheduler", "dashboard", "governor", "graph")}

    prefect: Port = Field(0, description="port of the Prefect server; 0: any free one")
    scheduler: Port = Field(0, description="port of the Dask scheduler; 0: any free one")
    dashboard: Port = Field(0, description="port of the Dask dashboard; 0: any free one")
    governor: Port = Field(0, description="port of the governor's HTTP face; 0: any free one")
    graph: Port = Field(0, description="port of the embedded graph server; 0: any free one")


class PrefectSettings(Section):
    """Prefect's server of `orc up`, and its work pool."""

    PREFIX, NAMES = "PREFECT_", {"work_pool": "WORK_POOL"}

    database_url: str | None = Field(
        None,
        description="SQLAlchemy URL of the Prefect server's database (postgresql+asyncpg://…); by default its SQLite",
    )
    work_pool: str = Field("orc", description="Prefect work pool the deployments run on")


class PlanningSettings(Section):
    """Numbers of the planner."""

    delay_usd_per_hour: str = Field(
        "0.50", description="what an hour of a task's waiting and running is worth, dollars"
    )
    deadline_quantile_sigmas: Annotated[float, Field(ge=0, le=5)] = Field(
        1.645,
        description="deadlines are planned with this quantile of the runtime, in standard deviations (1.645: 95 %)",
    )
    deadline_margin: str = Field("2s", description="time kept free before a deadline")
    aging: str = Field("10min", description="tasks that have waited for so long are taken for a priority class higher")
    ahead: str = Field("250ms", description="work sent ahead to a worker beyond its slots")
    max_losses: Annotated[int, Field(ge=0, le=1000)] = Field(
        4, description="worker deaths without notice charged to a task before it is refused"
    )

    @field_validator("delay_usd_per_hour")
    @classmethod
    def _usd(cls, value: str) -> str:
        try:
            units.usd_micros(value)
        except UnitError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("deadline_margin", "aging", "ahead")
    @classmethod
    def _duration(cls, value: str) -> str:
        return duration(value)

    def policy(self) -> Policy:
        """What the planner makes of them."""
        # not at the top: most commands read settings and plan nothing
        from agent.model.snapshot import Policy

        return Policy(
            delay_usd_micros_per_hour=units.usd_micros(self.delay_usd_per_hour),
            deadline_sigmas=self.deadline_quantile_sigmas,
            margin_ms=units.duration_ms(self.deadline_margin),
            aging_ms=units.duration_ms(self.aging),
            ahead_ms=units.duration_ms(self.ahead),
            max_losses=self.max_losses,
        )
