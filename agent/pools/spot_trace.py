"""Spot traces: when a zone has capacity and at what price, one sample each so many seconds.

The one reader of such files.

`{zone, gap_seconds, available: [0|1], spot_usd_per_hour: [], on_demand_usd_per_hour, timestamps}`, gzipped or not; the
last two may be absent, and other fields are for people. How a local pool plays it is said under `play`.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.errors import TraceError
from agent.model.units import MICROS

_Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Play(BaseModel):
    """How a local pool plays a trace: from its first launch on, and again from its end."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: seconds of the wall clock in which a sample is played; as long as it lasted when not said
    seconds_per_sample: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    #: warning before a worker is taken, seconds
    notice_seconds: _Finite = 2.0
    #: a granted worker's machine arrives so much later, seconds
    launch_delay_seconds: _Finite = 0.0
    #: the trace begins anew when the pool was empty for so long, seconds
    rewind_after_seconds: _Finite = 15.0
    #: Unix time at which it begins, for traces that are to be played side by side; at its pool's first launch when not
    #: said
    begins_unix_seconds: _Finite | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotTrace:
    """One zone over time."""

    #: us-east-1c
    zone: str
    #: seconds between samples
    gap_seconds: float
    #: a worker may be launched, and kept
    available: tuple[bool, ...]
    #: USD per hour of one worker, as many as `available`
    spot_usd_per_hour: tuple[float, ...]
    #: USD per hour on demand there; None: not known
    on_demand_usd_per_hour: float | None = None
    play: Play = field(default_factory=Play)

    @property
    def seconds_per_sample(self) -> float:
        """Seconds of the wall clock in which a sample is played."""
        return self.play.seconds_per_sample or self.gap_seconds

    @property
    def speed(self) -> float:
        """How many times as fast as it was it is played."""
        return self.gap_seconds / self.seconds_per_sample

    def at(self, seconds: float) -> tuple[bool, int]:
        """Whether there is capacity and the price in micro-dollars an hour, `seconds` after the play began."""
        sample = int(seconds / self.seconds_per_sample) % len(self.available)
        return self.available[sample], round(self.spot_usd_per_hour[sample] * MICROS)


def read(path: Path) -> SpotTrace:
    """A file's trace. Raises TraceError naming the file and the field or the sample."""
    try:
        raw = path.read_bytes()
        found = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except FileNotFoundError as error:
        raise TraceError(f"spot trace {path} cannot be read: {error.strerror}") from error
    except (OSError, EOFError, ValueError) as error:
        raise TraceError(f"{path}: not a readable trace ({error}); a JSON object, gzipped or not, is wanted") from error
    return of(found, str(path))


def played(path: Path) -> SpotTrace:
    """A trace that a local pool plays. Raises TraceError, also when it never has capacity."""
    trace = read(path)
    if not any(trace.available):
        raise TraceError(f"{path}: available is 0 at every sample: no worker could ever be launched")
    return trace


def of(found: Any, where: str) -> SpotTrace:  # noqa: C901
    """A trace from its parsed JSON; `where` names it in messages. Raises TraceError."""
    try:
        zone, gap = str(found["zone"]).split("_")[0], _number(found["gap_seconds"])
        up = [_number(value) for value in found["available"]]
        spot = [_number(value) for value in found["spot_usd_per_hour"]]
        times = [_number(value) for value in found.get("timestamps") or ()]
        dear = found.get("on_demand_usd_per_hour")
        on_demand = None if dear is None else _number(dear)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TraceError(
            f"{where}: {error!r}: zone, gap_seconds, available and spot_usd_per_hour are wanted"
        ) from error
    if not (math.isfinite(gap) and gap > 0):
        raise TraceError(f"{where}: gap_seconds is {gap}; seconds above zero are wanted")
    if len(up) != len(spot) or not up:
        raise TraceError(
            f"{where}: available has {len(up)} samples, spot_usd_per_hour {len(spot)}; one of each a sample is wanted"
        )
    for at, value in enumerate(up):
        if value not in (0, 1):
            raise TraceError(f"{where}: available[{at}] is {value}; 1 (available) or 0 is wanted")
    for at, usd in enumerate(spot):
        if not (math.isfinite(usd) and usd >= 0):
            raise TraceError(f"{where}: spot_usd_per_hour[{at}] is {usd}; a finite price, not negative, is wanted")
    if on_demand is not None and not (math.isfinite(on_demand) and on_demand >= 0):
        raise TraceError(f"{where}: on_demand_usd_per_hour is {on_demand}; a finite price, not negative, is wanted")
    unequal = any(abs(b - a - gap) > 0.5 for a, b in itertools.pairwise(times))
    if times and (len(times) != len(up) or unequal):
        raise TraceError(f"{where}: the timestamps are not {gap:g} s apart; resample to equal steps")
    try:
        play = Play.model_validate(found.get("play") or {})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in ("play", *first["loc"]))
        raise TraceError(f"{where}: {field}: {first['msg']}") from error
    return SpotTrace(
        zone=zone,
        gap_seconds=gap,
        available=tuple(value > 0 for value in up),
        spot_usd_per_hour=tuple(spot),
        on_demand_usd_per_hour=on_demand,
        play=play,
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)
