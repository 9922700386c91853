"""What goes into the ledger, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.model.leases import Lease
from agent.model.outcomes import Result
from agent.model.plans import Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """A flow run that has tasks here; the empty one stands for plain Dask."""

    no: int
    flow_run: str = ""
    root_run: str = ""
    flow: str = ""
    deployment: str = ""
    team: str = ""
    #: trace id of the root run, hex; "": it has none
    trace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision with the number placements refer to it by."""

    id: int
    run: int
    #: whose work it is; "": its run's team's
    team: str = ""
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One task sent to a pool."""

    id: int
    decision: int
    key: str
    budget: str | None = None
    reserve_usd_micros: int = 0
    #: placements whose results it takes in, as the ledger stores them
    upstream: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of a placement."""

    placement: int
    result: Result
    lease: int = 0
    start_ms: int = 0
    run_ms: int = 0
    #: its part of the worker's price while it ran
    usd_micros: int = 0
    #: pool of the worker it ran on, where that is not the decision's; ""
    ran_in: str = ""
    #: what a checkpoint of an earlier attempt spared it, ms: it belongs to the task's runtime
    spared_ms: int = 0
    #: items of a chunk; 1 for an ordinary task
    items: int = 1
    #: ("reads" or "writes", kind, address) of the datasets and models its body named
    lineage: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """An outcome as it stands in the ledger, with what it was of."""

    task_class: str
    #: of the worker it ran on
    pool: str
    root_run: str
    ended: Ended


@dataclass(slots=True, kw_only=True)
class Entry:
    """One record to be: everything that became true at once."""

    kind: str
    at_ms: int
    mode: str = "govern"
    actor: str = "governor"
    #: whatever else the record says, JSON
    says: dict[str, Any] = field(default_factory=dict)
    #: snapshot parts by name
    parts: Mapping[str, bytes] = field(default_factory=dict)
    runs: list[FlowRun] = field(default_factory=list)
    decisions: list[Decided] = field(default_factory=list)
    placements: list[Placed] = field(default_factory=list)
    outcomes: list[Ended] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)

    @property
    def worth_writing(self) -> bool:
        """Whether it says anything."""
        return bool(self.placements or self.outcomes or self.leases or self.decisions or self.says)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as it was read."""

    scheduler: str
    seq: int
    epoch: int
    kind: str
    at_ms: int
    mode: str
    actor: str
    #: empty when it cannot be read
    body: Mapping[str, Any]
    hash: bytes
    #: why its body cannot be read; "" when it can
    unreadable: str = ""
