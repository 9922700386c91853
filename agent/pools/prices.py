"""Prices by name: `price: aws/p3.2xlarge/us-east-1a/spot` in pools.yaml, looked up in a file or asked of a cloud."""

from __future__ import annotations

import asyncio
import difflib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError

from agent.errors import PriceError, UnitError
from agent.model import units
from agent.model.pools import PriceStep
from agent.pools.port import Price, Report
from agent.settings import Settings

logger = logging.getLogger("orc.prices")

#: a name has parts between slashes, the first of them letters: an amount never has
NAME = r"[A-Za-z][\w.-]*(/[\w.-]+)+"
Steps = tuple[PriceStep, ...]


class Prices(Protocol):
    """Whoever knows what machines cost."""

    def look(self, names: Collection[str]) -> Mapping[str, Steps]:
        """Price steps of each of these names, ascending, never empty; the last one is in force.

        Raises PriceError when a name is not known, or a price is none; nothing is guessed.
        """


class KnownPrices:
    """Prices that are told once, in memory."""

    def __init__(self, known: Mapping[str, Steps], where: str = "the known prices") -> None:
        self.known, self.where = dict(known), where

    def look(self, names: Collection[str]) -> Mapping[str, Steps]:
        """See `Prices`."""
        for name in sorted(names):
            if name not in self.known:
                near = ", ".join(difflib.get_close_matches(name, sorted(self.known), 3, 0.5)) or "none"
                raise PriceError(f"there is no price {name!r} in {self.where}; near it: {near}")
        return {name: self.known[name] for name in names}


class FilePrices:
    """Prices of a file, read again whenever they are looked up."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> KnownPrices:
        """What the file says now. Raises PriceError naming the price and why."""
        try:
            raw = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PriceError(f"prices {self.path} cannot be read: {error.strerror}; see ORC_PRICES") from error
        except yaml.YAMLError as error:
            raise PriceError(f"prices {self.path}: not YAML: {getattr(error, 'problem', error)}") from error
        said = raw.get("prices") if isinstance(raw, dict) and set(raw) == {"prices"} else None
        if not isinstance(said, dict):
            raise PriceError(f"prices {self.path}: a mapping `prices:` of names is wanted, and nothing else")
        known = {}
        for name, value in said.items():
            if not re.fullmatch(NAME, str(name)):
                raise PriceError(
                    f"prices {self.path}: {name!r} is no name; write for example lab/big or aws/TYPE/ZONE/spot"
                )
            try:
                known[str(name)] = steps_of(_AMOUNT.validate_python(value))
            except ValidationError as error:
                first = error.errors()[0]
                text = first["msg"].removeprefix("Value error, ")
                raise PriceError(f"prices {self.path}: {name}: {text} (it says {first['input']!r})") from error
        return KnownPrices(known, str(self.path))

    def look(self, names: Collection[str]) -> Mapping[str, Steps]:
        """See `Prices`."""
        return self.read().look(names)


class FileFirst:
    """What the file says, and of a cloud what it does not."""

    def __init__(self, file: FilePrices | None, clouds: Mapping[str, Prices]) -> None:
        self.file, self.clouds = file, dict(clouds)

    def look(self, names: Collection[str]) -> Mapping[str, Steps]:
        """See `Prices`."""
        said = self.file.read() if self.file is not None else KnownPrices({}, "a file: ORC_PRICES names none")
        out = dict(said.look([name for name in names if name in said.known]))
        for cloud, prices in self.clouds.items():
            if theirs := [name for name in names if name not in out and name.startswith(f"{cloud}/")]:
                out.update(prices.look(theirs))
        said.look([name for name in names if name not in out])
        return out


def of(settings: Settings) -> Prices:
    """Where the settings say that prices are looked up."""
    from agent.pools.aws import AwsPrices

    file = FilePrices(settings.prices.file) if settings.prices.file is not None else None
    return FileFirst(file, {"aws": AwsPrices(settings.prices.aws_endpoint_url)})


def watch(
    prices: Prices, pools: Mapping[str, str], every_ms: int, clock: Callable[[], float] = time.time
) -> Callable[[Report], Awaitable[None]]:
    """A feed: looks the named prices of pools up again and again, and reports those that have changed.

    When a look fails the last known prices stay in force, and the log says so.

    Args:
        pools: pool → name of its price.
    """

    async def follow(report: Report) -> None:
        last: dict[str, int] = {}
        while True:
            try:
                found = await asyncio.to_thread(prices.look, frozenset(pools.values()))
            except PriceError as error:
                logger.warning("%s; the last known prices stay in force", error)
            else:
                for pool, name in pools.items():
                    usd_micros = in_force(found[name], round(clock() * 1000))
                    if last.get(pool) != usd_micros:
                        last[pool] = usd_micros
                        report(Price(pool=pool, usd_micros_per_hour=usd_micros))
            await asyncio.sleep(every_ms / 1000)

    return follow


def in_force(steps: Steps, now_ms: int) -> int:
    """Micro-dollars an hour at an instant; the first step's before it."""
    return next((s.usd_micros_per_hour for s in reversed(steps) if s.since_ms <= now_ms), steps[0].usd_micros_per_hour)


# ---------------------------------------------------------------------- what files say
def unit(parse: Any) -> Any:
    """A pydantic field that is read by one of `agent.model.units`."""

    def read(value: Any) -> Any:
        try:
            return parse(value)
        except UnitError as error:
            raise ValueError(str(error)) from error

    return BeforeValidator(read)


Usd = Annotated[int, unit(units.usd_micros)]


class Step(BaseModel):
    """A price from an instant on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: ISO instant from which the price holds
    since: datetime
    usd_per_hour: Usd


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "steps over time"
    return "a name" if isinstance(value, str) and "/" in value else "an amount"


#: dollars an hour, steps over time, or a name
Said = Annotated[
    Annotated[Usd, Tag("an amount")]
    | Annotated[list[Step], Field(min_length=1), Tag("steps over time")]
    | Annotated[str, Field(pattern=f"^{NAME}$"), Tag("a name")],
    Discriminator(_kind),
]
#: what `Said` adds to the place of an error
TAGS = frozenset({"an amount", "steps over time", "a name"})
_AMOUNT: TypeAdapter[int | list[Step]] = TypeAdapter(
    Annotated[
        Annotated[Usd, Tag("an amount")] | Annotated[list[Step], Field(min_length=1), Tag("steps over time")],
        Discriminator(lambda value: "steps over time" if isinstance(value, list) else "an amount"),
    ]
)


def steps_of(said: int | Sequence[Step]) -> Steps:
    """Steps in order of time, of an amount or of steps as they are written."""
    if isinstance(said, int):
        return (PriceStep(since_ms=0, usd_micros_per_hour=said),)
    steps = [PriceStep(since_ms=round(s.since.timestamp() * 1000), usd_micros_per_hour=s.usd_per_hour) for s in said]
    return tuple(sorted(steps, key=lambda step: step.since_ms))
