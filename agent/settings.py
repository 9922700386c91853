"""Every setting, read once from the environment and `.env`, and checked."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from agent.errors import SettingError, UnitError
from agent.model import units
from agent.model.addresses import without_secrets
from agent.model.snapshot import Policy
from agent.processes import trust

Mode = Literal["off", "shadow", "govern"]
_Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseSettings):
    """Settings, each `ORC_NAME` in the environment or in `.env`."""

    model_config = SettingsConfigDict(env_prefix="ORC_", extra="ignore", frozen=True)

    env_file: str = Field(
        ".env",
        description="file of settings that the environment does not say; one of that name in the folder one stands in is read where only you can have written it; empty: none",
    )
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
    allow_open_host: bool = Field(
        False,
        description="let ORC_HOST be one that others on the network can reach: without TLS, which is not there yet, whoever reaches the Dask scheduler runs code as you",
    )
    host: str = Field("127.0.0.1", description="interface the services of `orc up` and their workers listen on")
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
    task_umask: str | None = Field(
        None,
        description="rights that files lack which flows and tasks write, as in `umask`; by default those of the shell that ran `orc up`",
    )
    allow_untested: bool = Field(False, description="govern a scheduler whose version of distributed is untested")
    governed: Literal["required", "optional"] = Field(
        "required",
        description="required: a flow fails where its scheduler has no extension, as it does by default where a scheduler, pools or a mode are said; optional: it runs ungoverned with a warning",
    )

    #: names that the file said, and the file
    _by_file: tuple[str, ...] = PrivateAttr(())
    _file: Path | None = PrivateAttr(None)

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

    @field_validator("task_umask")
    @classmethod
    def _umask(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"0?[0-7]{3}", value):
            raise ValueError(f"{value!r} is no umask; write three digits from 0 to 7, as 022")
        return value

    @field_validator("host")
    @classmethod
    def _loopback(cls, value: str, info: ValidationInfo) -> str:
        if not info.data.get("allow_open_host") and not _of_this_machine(value):
            raise ValueError(
                "others on the network could reach the services there, and there is no TLS yet: whoever reaches the Dask "
                "scheduler or a worker runs code as you. Keep 127.0.0.1, or, where a firewall keeps others out, set "
                "ORC_ALLOW_OPEN_HOST=true"
            )
        return value

    def umask_of_tasks(self) -> int | None:
        """`task_umask` as a number."""
        return None if self.task_umask is None else int(self.task_umask, 8)

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

    def by_file(self) -> str:
        """What the file of settings said and the environment did not, as a sentence; "" when nothing."""
        if not self._by_file:
            return ""
        return f"{self._file} says {', '.join(f'ORC_{name.upper()}' for name in self._by_file)}"

    def chain_name(self) -> str:
        """Name of the scheduler in the ledger: it stays when the scheduler gets another port."""
        return self.chain or self.scheduler or "local"

    def ledger(self) -> str:
        """URL of the ledger."""
        return self.ledger_url or f"sqlite:///{self.home.absolute() / 'ledger.db'}"


#: settings whose values are not shown, and those that are URLs, which may hold a password
_SECRET, _URLS = (
    {"graph_password"},
    {"ledger_url", "prefect_database_url", "graph_url", "scheduler", "aws_endpoint_url"},
)


def _of_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load() -> Settings:
    """The settings. Raises SettingError naming each wrong one and why, or whose files would have been obeyed."""
    file, said = _file(os.environ.get("ORC_ENV_FILE"))
    try:
        settings = Settings(_env_file=file)
    except ValidationError as error:
        raise SettingError("\n".join(_shown(e, file, said) for e in error.errors())) from error
    settings._file, settings._by_file = file, tuple(name for name in said if name in settings.model_fields_set)  # noqa: SLF001
    _refuse_strangers(settings)
    return settings


def _refuse_strangers(settings: Settings) -> None:
    """What is taken because one stands beside it is taken only if nobody else can have written it."""
    for name, files in (("home", ("ledger.db",)), ("rules", ("*.yaml",))):
        path: Path = getattr(settings, name)
        if name in settings.model_fields_set or not path.exists():
            continue
        for found in (path, *(file for pattern in files for file in path.glob(pattern))):
            if why := trust.stranger(found):
                how = _NAME_IT.format(name=name.upper(), path=path)
                raise SettingError(f"{why}: it is not taken because one stands beside it. {how}")


_NAME_IT = "Set ORC_{name}={path} if it is what you want, or go elsewhere"


def _file(named: str | None) -> tuple[Path | None, Mapping[str, str | None]]:
    """The file of settings and what it says, by the settings' names, without what the environment says."""
    path = Path(Settings.model_fields["env_file"].default if named is None else named)
    if named == "" or (named is None and not path.is_file()):
        return None, {}
    if not path.is_file():
        raise SettingError(f"ORC_ENV_FILE={named}: there is no such file")
    if named is None and (why := trust.stranger(path)):
        raise SettingError(f"{why}: its settings are not obeyed. {_NAME_IT.format(name='ENV_FILE', path=path)}")
    prefix = "orc_"
    source = DotEnvSettingsSource(Settings, env_file=path)
    environment = {name.lower() for name in os.environ}
    return path, {
        name.removeprefix(prefix): value
        for name, value in source.env_vars.items()
        if name.startswith(prefix) and name not in environment
    }


def _shown(error: ErrorDetails, file: Path | None, said: Mapping[str, str | None]) -> str:
    """One wrong setting, without its secrets."""
    name, value, why = str(error["loc"][0]), error["input"], error["msg"].removeprefix("Value error, ")
    if isinstance(value, str) and name in _SECRET | _URLS:
        shown = "***" if name in _SECRET else without_secrets(value)
        value, why = shown, why.replace(value, shown)
    where = f" ({file})" if name in said else ""
    return f"ORC_{name.upper()}={value!r}{where}: {why}"
