"""Every setting, read once from the environment and `.env`, and checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent.errors import SettingError, UnitError
from agent.model import units
from agent.model.snapshot import Policy

Mode = Literal["off", "shadow", "govern"]
_Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Settings, each `ORC_NAME` in the environment or in `.env`."""

    model_config = SettingsConfigDict(env_prefix="ORC_", env_file=".env", extra="ignore", frozen=True)

    mode: Mode = Field("govern", description="off: plain Dask; shadow: plans are recorded and nothing is held; govern")
    home: Path = Field(Path(".orc"), description="folder of everything ORC keeps: ledger, logs, records of processes")
    pools: Path = Field(Path("deployments/pools.yaml"), description="the file that declares pools and budgets")
    prices: Path | None = Field(
        None, description="a file of prices by name; what it does not name is asked of the cloud"
    )
    prices_every: str = Field("5 min", description="how often prices by name are looked up again")
    aws_endpoint_url: str | None = Field(
        None, description="URL at which EC2 is asked for spot prices; by default AWS's own of the zone's region"
    )
    rules: Path = Field(
        Path("rules"), description="a rule file, or a folder of them; where there is none, the rules ORC comes with"
    )
    scheduler: str | None = Field(
        None, description="address of the Dask scheduler to govern, tcp://HOST:PORT; by default the one `orc up` starts"
    )
    chain: str | None = Field(
        None,
        description="name of the scheduler in the ledger; by default its address, and `local` for the one of `orc up`",
    )
    ledger_url: str | None = Field(None, description="SQLAlchemy URL of the ledger; by default SQLite in ORC_HOME")
    graph_url: str | None = Field(
        None,
        description="Bolt URL of the knowledge graph (Neo4j); by default the embedded server of `orc up`; off: none",
    )
    graph_user: str = Field("neo4j", description="user of the graph at ORC_GRAPH_URL")
    graph_password: SecretStr = Field(SecretStr(""), description="its password")
    graph_database: str | None = Field(None, description="its database; by default the user's home database")
    graph_port: _Port = Field(0, description="port of the embedded graph server; 0: any free one")
    graph_heap: str = Field("512m", description="most memory of the embedded graph server's Java heap")
    host: str = Field("127.0.0.1", description="interface the services of `orc up` listen on")
    prefect_port: _Port = Field(0, description="port of the Prefect server; 0: any free one")
    scheduler_port: _Port = Field(0, description="port of the Dask scheduler; 0: any free one")
    dashboard_port: _Port = Field(0, description="port of the Dask dashboard; 0: any free one")
    governor_port: _Port = Field(0, description="port of the governor's HTTP face; 0: any free one")
    prefect_database_url: str | None = Field(
        None,
        description="SQLAlchemy URL of the Prefect server's database (postgresql+asyncpg://…); by default its SQLite",
    )
    work_pool: str = Field("orc", description="Prefect work pool the deployments run on")
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
    worker_ttl: str = Field(
        "60s",
        description="a worker that the scheduler of `orc up` has not heard for so long is given up, and its tasks are decided anew; longer where tasks hold the interpreter for longer",
    )
    allow_untested: bool = Field(False, description="govern a scheduler whose version of distributed is untested")
    governed: Literal["required", "optional"] = Field(
        "required",
        description="required: a flow fails where its scheduler has no extension; optional: it runs ungoverned with a warning",
    )

    @field_validator("delay_usd_per_hour")
    @classmethod
    def _usd(cls, value: str) -> str:
        try:
            units.usd_micros(value)
        except UnitError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("deadline_margin", "aging", "ahead", "worker_ttl", "prices_every")
    @classmethod
    def _duration(cls, value: str) -> str:
        try:
            units.duration_ms(value)
        except UnitError as error:
            raise ValueError(str(error)) from error
        return value

    @field_validator("prices_every")
    @classmethod
    def _pause(cls, value: str) -> str:
        if units.duration_ms(value) < 1000:
            raise ValueError(f"{value!r} is too often; a second at least")
        return value

    @field_validator("aws_endpoint_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://.", value):
            raise ValueError(f"{value!r} is no URL; write https://HOST or http://HOST:PORT")
        return value

    @field_validator("scheduler")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError(f"{value!r} has no protocol; write tcp://HOST:PORT")
        return value

    @field_validator("graph_url")
    @classmethod
    def _bolt(cls, value: str | None) -> str | None:
        if value is not None and value != "off" and not re.match(r"(bolt|neo4j)(\+s|\+ssc)?://", value):
            raise ValueError(f"{value!r} is no Bolt URL; write bolt://HOST:PORT, neo4j://HOST:PORT or off")
        return value

    @field_validator("graph_heap")
    @classmethod
    def _heap(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9][0-9]*[mg]", value):
            raise ValueError(f"{value!r} is no Java heap size; write 512m or 2g")
        return value

    def rule_files(self) -> Path:
        """The rules in force: ORC_RULES, else a folder `rules` here, else those ORC comes with."""
        if "rules" in self.model_fields_set or any(self.rules.glob("*.yaml")):
            return self.rules
        import rules  # not at the top: settings are read on workers too, which ORC reaches without its rules

        return Path(rules.__file__).parent

    def pools_declared(self) -> bool:
        """Whether there is a pools file, or one is asked for: without one, every worker is of the pool `default`."""
        return "pools" in self.model_fields_set or self.pools.exists()

    def policy(self) -> Policy:
        """The planner's numbers."""
        return Policy(
            delay_usd_micros_per_hour=units.usd_micros(self.delay_usd_per_hour),
            deadline_sigmas=self.deadline_quantile_sigmas,
            margin_ms=units.duration_ms(self.deadline_margin),
            aging_ms=units.duration_ms(self.aging),
            ahead_ms=units.duration_ms(self.ahead),
            max_losses=self.max_losses,
        )

    def chain_name(self) -> str:
        """Name of the scheduler in the ledger: it stays when the scheduler gets another port."""
        return self.chain or self.scheduler or "local"

    def ledger(self) -> str:
        """URL of the ledger."""
        return self.ledger_url or f"sqlite:///{self.home.absolute() / 'ledger.db'}"


def load() -> Settings:
    """The settings. Raises SettingError naming each wrong one and why."""
    try:
        return Settings()
    except ValidationError as error:
        lines = [
            f"ORC_{str(e['loc'][0]).upper()}={e['input']!r}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise SettingError("\n".join(lines)) from error
