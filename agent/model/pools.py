"""Worker pools: a market, workers of a size, a price, limits, and how live workers are recognised."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from agent.model.units import cost_micros, show_mib

Market = Literal["spot", "on-demand"]
DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which live workers belong to a pool: every field that is given must match."""

    #: glob on the worker's name
    name: str | None = None
    #: glob on the worker's host
    host: str | None = None
    #: Dask resources the worker must offer, name and least amount
    resources: tuple[tuple[str, float], ...] = ()
    #: exact number of threads
    nthreads: int | None = None

    def matches(self, *, name: str, host: str, resources: Mapping[str, float], nthreads: int) -> bool:
        """Whether a worker that shows these belongs to the pool; a selector without fields matches none."""
        if self.name is None and self.host is None and not self.resources and self.nthreads is None:
            return False
        return (
            (self.name is None or fnmatchcase(name, self.name))
            and (self.host is None or fnmatchcase(host, self.host))
            and (self.nthreads is None or nthreads == self.nthreads)
            and all(resources.get(key, 0.0) >= amount for key, amount in self.resources)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceStep:
    """A price that holds from an instant on."""

    #: Unix time, ms; 0: always
    since_ms: int
    #: ≥ 0
    usd_micros_per_hour: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Workers that are alike."""

    name: str
    #: spot workers may be taken away
    market: Market
    #: cores of one worker
    cpus: int
    #: memory of one worker, MiB
    memory_mib: int
    #: tasks one worker runs at a time (its threads)
    slots: int
    #: GPUs of one worker
    gpus: int = 0
    gpu_model: str | None = None
    #: the GPU is only pretended, for trying things out
    emulated: bool = False
    #: price of one worker, ascending in time, never empty
    price: tuple[PriceStep, ...]
    #: False for workers whose price nobody said
    priced: bool = True
    min_workers: int = 0
    max_workers: int = 0
    #: from asking for a worker to its first task, ms; billed
    startup_ms: int = 0
    #: the shortest time that is billed, ms
    min_billing_ms: int = 0
    #: an idle worker is kept this long, ms
    idle_ms: int = 30_000
    #: prior of interruptions in 1,000 hours; 0 for on-demand
    interruptions_per_1000_hours: int = 0
    #: zone, region, instance type, …
    labels: tuple[tuple[str, str], ...] = ()
    #: Dask resources its workers offer, name and thousandths
    resources: tuple[tuple[str, int], ...] = ()
    selector: Selector = Selector()
    #: provider that launches its workers; None: they are only observed
    provider: str | None = None
    #: how many times as fast as it was its market is played; 1 but for traces
    speed: int = 1

    @property
    def zone(self) -> str:
        """us-east-1c, as its labels say; "": they do not."""
        return dict(self.labels).get("zone", "")

    @property
    def region(self) -> str:
        """The region its labels name, else that of its zone."""
        return dict(self.labels).get("region") or region_of(self.zone)

    @property
    def kind(self) -> str:
        """What people call it: gpu, spot or on-demand."""
        return "gpu" if self.gpus else self.market

    @property
    def shown_kind(self) -> str:
        """`gpu (emulated)`, `spot gpu`, `spot`, `on-demand`."""
        kind = "spot gpu" if self.gpus and self.market == "spot" else self.kind
        return f"{kind} (emulated)" if self.emulated else kind

    @property
    def shown_size(self) -> str:
        """`2 cpus, 4 GiB, 1 x T4`."""
        gpus = f", {self.gpus} x {self.gpu_model or 'GPU'}{' (emulated)' if self.emulated else ''}" if self.gpus else ""
        return f"{self.cpus} cpu{'s' if self.cpus > 1 else ''}, {show_mib(self.memory_mib)}{gpus}"

    def price_at(self, now_ms: int) -> int:
        """Micro-dollars per hour of one worker at an instant."""
        at = bisect_right(self.price, now_ms, key=lambda step: step.since_ms)
        return self.price[max(0, at - 1)].usd_micros_per_hour

    def price_between(self, start_ms: int, stop_ms: int) -> int:
        """The highest price per hour in force at any instant of a span."""
        return max(
            self.price_at(start_ms), *(s.usd_micros_per_hour for s in self.price if start_ms <= s.since_ms < stop_ms), 0
        )

    def cost(self, start_ms: int, stop_ms: int) -> int:
        """Micro-dollars of one worker over a span, the price steps summed."""
        edges = [start_ms, *(s.since_ms for s in self.price if start_ms < s.since_ms < stop_ms), stop_ms]
        return sum(cost_micros(self.price_at(a), b - a) for a, b in itertools.pairwise(edges) if b > a)

    def billed(self, start_ms: int, stop_ms: int) -> int:
        """Micro-dollars a lease costs: its span, at least the minimum billing."""
        return self.cost(start_ms, max(stop_ms, start_ms + self.min_billing_ms))


def region_of(zone: str) -> str:
    """`us-east-1` of `us-east-1a`, `us-central1` of `us-central1-a`; a name of another form is its own region."""
    found = re.fullmatch(r"(.*\d)-?[a-z]", zone)
    return found[1] if found else zone


def pool_of(
    pools: tuple[tuple[str, Selector], ...], *, name: str, host: str, resources: Mapping[str, float], nthreads: int
) -> str:
    """Name of the first pool whose selector matches a worker, else `default`."""
    for pool, selector in pools:
        if selector.matches(name=name, host=host, resources=resources, nthreads=nthreads):
            return pool
    return DEFAULT
