"""Spot weather: when a pool has capacity and what it costs, played from a trace, sped up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.errors import PoolError

_Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Weather(BaseModel):
    """A trace: one entry a tick. Played from a pool's first launch on, and again from its end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: where it comes from, its licence, the time between its samples: for people
    source: str
    #: seconds of the wall clock that a tick is played in
    seconds_per_tick: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    #: 1: a worker may be launched and kept
    available: list[Annotated[int, Field(ge=0, le=1)]] = Field(min_length=2)
    usd_per_hour: list[_Finite]
    #: warning before a worker is taken, seconds
    notice_seconds: _Finite = 2.0
    #: a granted worker's machine arrives so much later, seconds
    launch_delay_seconds: _Finite = 0.0
    #: the trace begins anew when the pool was empty for so long, seconds
    rewind_after_seconds: _Finite = 15.0

    @model_validator(mode="after")
    def _same_length(self) -> Weather:
        if len(self.available) != len(self.usd_per_hour):
            raise ValueError(
                f"available has {len(self.available)} ticks and usd_per_hour {len(self.usd_per_hour)}; they must be as many"
            )
        if not any(self.available):
            raise ValueError("available is 0 at every tick: no worker could ever be launched")
        return self

    def at(self, seconds: float) -> tuple[bool, int]:
        """Whether there is capacity and the price in micro-dollars an hour, `seconds` after the trace began."""
        tick = int(seconds / self.seconds_per_tick) % len(self.available)
        return bool(self.available[tick]), round(self.usd_per_hour[tick] * 1_000_000)


def read(path: Path) -> Weather:
    """A weather file. Raises PoolError naming the file and the field."""
    try:
        return Weather.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PoolError(f"weather file {path} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise PoolError(f"weather file {path}:{error.lineno}: not JSON: {error.msg}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise PoolError(
            f"weather file {path}: {'.'.join(str(p) for p in first['loc']) or 'the file'}: {first['msg']}"
        ) from error
