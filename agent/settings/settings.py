"""The settings as a whole: what they say of this ORC, and their sections."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from agent.settings.sections import (
    GraphSettings,
    PlanningSettings,
    PortSettings,
    PrefectSettings,
    PriceSettings,
    Section,
    duration,
)

Mode = Literal["off", "shadow", "govern"]


class Settings(Section):
    """Settings, each `ORC_NAME` in the environment or in `.env`."""

    SECTIONS: ClassVar[dict[str, type[Section]]] = {
        "prices": PriceSettings,
        "graph": GraphSettings,
        "ports": PortSettings,
        "prefect": PrefectSettings,
        "planning": PlanningSettings,
    }

    env_file: str = Field(
        ".env",
        description="file of settings that the environment does not say; one of that name in the folder one stands in "
        "is read where only you can have written it; empty: none",
    )
    mode: Mode = Field("govern", description="off: plain Dask; shadow: plans are recorded and nothing is held; govern")
    home: Path = Field(Path(".orc"), description="folder of everything ORC keeps: ledger, logs, records of processes")
    pools: Path = Field(Path("deployments/pools.yaml"), description="the file that declares pools and budgets")
    prices: PriceSettings = PriceSettings()
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
    graph: GraphSettings = GraphSettings()
    allow_open_host: bool = Field(
        False,
        description="let ORC_HOST be one that others on the network can reach: without TLS, which is not there yet, "
        "whoever reaches the Dask scheduler runs code as you",
    )
    host: str = Field("127.0.0.1", description="interface the services of `orc up` and their workers listen on")
    ports: PortSettings = PortSettings()
    prefect: PrefectSettings = PrefectSettings()
    planning: PlanningSettings = PlanningSettings()
    worker_ttl: str = Field(
        "60s",
        description="a worker that the scheduler of `orc up` has not heard for so long is given up, and its tasks are "
        "decided anew; longer where tasks hold the interpreter for longer",
    )
    task_umask: str | None = Field(
        None,
        description="rights that files lack which flows and tasks write, as in `umask`; by default those of the shell "
        "that ran `orc up`",
    )
    allow_untested: bool = Field(False, description="govern a scheduler whose version of distributed is untested")
    governed: Literal["required", "optional"] = Field(
        "required",
        description="required: a flow fails where its scheduler has no extension, as it does by default where a "
        "scheduler, pools or a mode are said; optional: it runs ungoverned with a warning",
    )

    #: variables that the file said and the environment did not, and the file
    _by_file: tuple[str, ...] = PrivateAttr(())
    _file: Path | None = PrivateAttr(None)

    @field_validator("worker_ttl")
    @classmethod
    def _duration(cls, value: str) -> str:
        return duration(value)

    @field_validator("scheduler")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value:
            raise ValueError(f"{value!r} has no protocol; write tcp://HOST:PORT")
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
                "others on the network could reach the services there, and there is no TLS yet: whoever reaches the "
                "Dask scheduler or a worker runs code as you. Keep 127.0.0.1, or, where a firewall keeps others out, "
                "set ORC_ALLOW_OPEN_HOST=true"
            )
        return value

    @classmethod
    def variables(cls) -> Iterator[tuple[str, tuple[str, ...], FieldInfo]]:
        """Each setting: its variable, where it stands, and what it is."""
        for name, field in cls.model_fields.items():
            if (section := cls.SECTIONS.get(name)) is None:
                yield cls.variable(name), (name,), field
                continue
            for inner, part in section.model_fields.items():
                yield section.variable(inner), (name, inner), part

    def told_by(self, file: Path, variables: tuple[str, ...]) -> Settings:
        """The same, knowing which of them a file said."""
        made = self.model_copy()
        made._file, made._by_file = file, variables  # noqa: SLF001
        return made

    def by_file(self) -> str:
        """What the file of settings said and the environment did not, as a sentence; "" when nothing."""
        return f"{self._file} says {', '.join(self._by_file)}" if self._by_file else ""

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

    def chain_name(self) -> str:
        """Name of the scheduler in the ledger: it stays when the scheduler gets another port."""
        return self.chain or self.scheduler or "local"

    def ledger(self) -> str:
        """URL of the ledger."""
        return self.ledger_url or f"sqlite:///{self.home.absolute() / 'ledger.db'}"


def _of_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
