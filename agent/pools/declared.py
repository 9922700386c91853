"""Reading `pools.yaml`. Every error names the file, the pool, the field and what is allowed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.errors import PoolError, PriceError, TraceError
from agent.model import units
from agent.model.pools import DEFAULT, Pool, PriceStep, Selector, pool_of
from agent.model.snapshot import Budget
from agent.pools import prices, spot_trace
from agent.pools.prices import KnownPrices, Prices
from agent.pools.spot_trace import SpotTrace

_Usd = prices.Usd
_Ms = Annotated[int, prices.unit(units.duration_ms)]
_Mib = Annotated[int, prices.unit(units.memory_mib)]
_Count = Annotated[int, Field(ge=0, strict=True)]
_Positive = Annotated[int, Field(ge=1, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Gpus(_Strict):
    count: _Positive
    model: str | None = None
    #: pretend when this machine has none
    emulate: bool = False


class _Size(_Strict):
    cpus: _Positive
    memory: _Mib
    #: tasks a worker runs at a time; as many as cpus when not said
    slots: _Positive | None = None
    gpus: _Gpus | None = None


class _Limits(_Strict):
    min: _Count = 0
    max: _Count


class _Selector(_Strict):
    name: str | None = None
    host: str | None = None
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    nthreads: _Positive | None = None


class _Pool(_Strict):
    market: Literal["spot", "on-demand"]
    worker: _Size
    price: prices.Said | None = None
    workers: _Limits
    startup: _Ms = 0
    min_billing: _Ms = 0
    idle: _Ms = 30_000
    #: declared interruptions per hour, for spot
    interruptions_per_hour: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] | None = None
    labels: dict[str, str] = {}
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    selector: _Selector = _Selector()
    provider: Literal["local"] | None = None
    #: file of the trace that a local spot pool plays, relative to pools.yaml
    spot_trace: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Pool:
        if self.price is None and self.spot_trace is None:
            raise ValueError(
                "price is missing: say dollars per hour of one worker (0 when it is free), steps over time, or a name"
            )
        if self.workers.min > self.workers.max:
            raise ValueError(f"workers.min {self.workers.min} is above workers.max {self.workers.max}")
        if self.market == "on-demand" and (self.interruptions_per_hour or self.spot_trace):
            raise ValueError(
                "an on-demand pool is not interrupted: interruptions_per_hour and spot_trace belong to market: spot"
            )
        if self.spot_trace is not None and self.provider != "local":
            raise ValueError("spot_trace is played by provider: local")
        return self


class _Budget(_Strict):
    usd: _Usd
    #: reserved for tasks that say no max_runtime
    max_runtime: _Ms | None = None


class _File(_Strict):
    pools: dict[str, _Pool] = {}
    budgets: dict[str, _Budget] = {}
    #: team → weight of its share of the workers
    shares: dict[str, _Positive] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What pools.yaml says."""

    pools: tuple[Pool, ...]
    budgets: tuple[Budget, ...]
    #: by the pools that play one
    spot_traces: Mapping[str, SpotTrace]
    #: pools whose price has a name, and the name
    price_names: Mapping[str, str]
    #: team → weight
    shares: tuple[tuple[str, int], ...] = ()


#: nothing is declared: every worker is of the pool `default`
NONE = Declared(pools=(), budgets=(), spot_traces={}, price_names={})
#: nobody tells prices by name
UNKNOWN = KnownPrices({}, "this place, which knows no prices by name")


def real_gpus() -> bool:
    """Whether this machine has an NVIDIA GPU."""
    return shutil.which("nvidia-smi") is not None and any(Path("/dev").glob("nvidia[0-9]*"))


def read(path: Path, known: Prices = UNKNOWN) -> Declared:
    """Pools, budgets and spot traces of a file. Raises PoolError; nothing is half-read.

    Args:
        known: where prices by name are looked up.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PoolError(f"{path} cannot be read: {error.strerror}; set ORC_POOLS to your pools.yaml") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise PoolError(
            f"{path}:{mark.line + 1 if mark else '?'}: not YAML: {getattr(error, 'problem', error)}"
        ) from error
    try:
        file = _File.model_validate(raw or {})
    except ValidationError as error:
        raise PoolError("\n".join(_say(path, e) for e in error.errors())) from error
    traces = {
        name: _trace(path, name, said.spot_trace) for name, said in file.pools.items() if said.spot_trace is not None
    }
    named = {name: said.price for name, said in file.pools.items() if isinstance(said.price, str)}
    found = {name: _look(path, name, price, known) for name, price in named.items()}
    pools = tuple(_pool(path, name, said, traces.get(name), found.get(name)) for name, said in file.pools.items())
    _apart(path, pools)
    budgets = tuple(
        Budget(name=name, limit_usd_micros=b.usd, max_runtime_ms=b.max_runtime) for name, b in file.budgets.items()
    )
    return Declared(
        pools=pools, budgets=budgets, spot_traces=traces, price_names=named, shares=tuple(sorted(file.shares.items()))
    )


def _trace(path: Path, pool: str, file: str) -> SpotTrace:
    try:
        return spot_trace.played(path.parent / file)
    except TraceError as error:
        raise PoolError(f"{path}: pool {pool!r}: {error}") from error


def _look(path: Path, pool: str, name: str, known: Prices) -> tuple[PriceStep, ...]:
    try:
        return known.look([name])[name]
    except PriceError as error:
        raise PriceError(f"{path}: pool {pool!r}: price: {error}") from error


def _apart(path: Path, pools: Sequence[Pool]) -> None:
    """Raises PoolError when a worker launched for a pool would count to another, or two pools select the same."""
    selectors = tuple((pool.name, pool.selector) for pool in pools)
    for at, pool in enumerate(pools):
        same = next((other.name for other in pools[:at] if other.selector == pool.selector != Selector()), None)
        if same is not None:
            raise PoolError(
                f"{path}: pools {same!r} and {pool.name!r} select the same workers; "
                "make their selectors exclude each other"
            )
        if pool.provider is None:
            continue
        worker = f"{pool.name}-0"
        resources = {name: amount / 1000 for name, amount in pool.resources}
        found = pool_of(selectors, name=worker, host="localhost", resources=resources, nthreads=pool.slots)
        if found not in (pool.name, DEFAULT):
            raise PoolError(
                f"{path}: the selectors of pools {found!r} and {pool.name!r} overlap: "
                f"worker {worker!r} would count to {found!r}, "
                f"which comes first; rename one, or give {found!r} a selector that leaves it out"
            )


def _say(path: Path, error: Any) -> str:
    where = [str(part) for part in error["loc"] if part not in prices.TAGS]
    place = (
        f"pool {where[1]!r}: {'.'.join(where[2:])}"
        if where[:1] == ["pools"] and len(where) > 1
        else ".".join(where) or "the file"
    )
    text = error["msg"].removeprefix("Value error, ")
    text = (
        "unknown field; see docs/reference/pools.md for the fields of a pool"
        if error["type"] == "extra_forbidden"
        else text
    )
    return f"{path}: {place.rstrip(': ')}: {text}" + (
        f" (it says {error['input']!r})" if error["type"] not in ("missing", "value_error", "extra_forbidden") else ""
    )


def _pool(path: Path, name: str, said: _Pool, trace: SpotTrace | None, found: tuple[PriceStep, ...] | None) -> Pool:
    if name == DEFAULT or not name.replace("-", "").replace("_", "").isalnum():
        raise PoolError(f"{path}: pool {name!r}: a pool's name has letters, digits, '-' and '_', and is not 'default'")
    gpus, emulated = said.worker.gpus, False
    if gpus is not None and gpus.emulate:
        emulated = not real_gpus()
    if found is not None:
        price = found
    elif said.price is None or isinstance(said.price, str):
        price = prices.steps_of(trace.at(0)[1] if trace is not None else 0)
    else:
        price = prices.steps_of(said.price)
    slots = said.worker.slots or said.worker.cpus
    return Pool(
        name=name,
        market=said.market,
        cpus=said.worker.cpus,
        memory_mib=said.worker.memory,
        slots=slots,
        gpus=gpus.count if gpus else 0,
        gpu_model=gpus.model if gpus else None,
        emulated=emulated,
        price=price,
        min_workers=said.workers.min,
        max_workers=said.workers.max,
        startup_ms=said.startup,
        min_billing_ms=said.min_billing,
        idle_ms=said.idle,
        interruptions_per_1000_hours=round(
            1000
            * (
                said.interruptions_per_hour
                if said.interruptions_per_hour is not None
                else 0.1
                if said.market == "spot"
                else 0
            )
        ),
        labels=tuple(sorted(said.labels.items())),
        resources=tuple(sorted((k, round(v * 1000)) for k, v in said.resources.items())),
        selector=Selector(
            name=said.selector.name or (f"{name}-*" if said.provider else None),
            host=said.selector.host,
            resources=tuple(sorted(said.selector.resources.items())),
            nthreads=said.selector.nthreads,
        ),
        provider=said.provider,
        speed=max(1, round(trace.speed)) if trace is not None else 1,
    )
