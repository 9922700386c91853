"""What an online placement policy of one checkpointed job sees, and what it may ask for.

A policy has two methods: `start(job)`, called once, and `decide(seen)`, called at every tick and again within the tick
after each launch or probe, whose outcome is the last of `seen.tried`, until it returns None. Whether a zone has spot
capacity is told only by the job's own instance, its own launches and its own probes. Times are seconds, money is USD,
prices are USD per hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

IDLE, SPOT, ON_DEMAND = "idle", "spot", "on_demand"


class LaunchInstance(NamedTuple):
    """Start an instance, or move to it; what runs now is stopped only when the new one is granted."""

    #: index into `SimulatedJob.zones`
    zone: int
    #: SPOT or ON_DEMAND
    kind: str


class ProbeZone(NamedTuple):
    """Ask a zone for a spot instance and give it back at once; billed `SimulatedJob.probe_s` seconds when granted."""

    #: index into `SimulatedJob.zones`
    zone: int


class StopInstance(NamedTuple):
    """StopInstance what runs; the progress made so far is kept."""


Action = LaunchInstance | ProbeZone | StopInstance


class Attempt(NamedTuple):
    """An action of this tick and how it went."""

    action: Action
    #: granted
    ok: bool


@dataclass(frozen=True)
class Zone:
    """A place that sells the instance."""

    #: us-east-1c
    name: str
    #: us-east-1: within it a checkpoint moves for nothing
    region: str


@dataclass(frozen=True)
class SimulatedJob:
    """One job with continuous checkpoints and a deadline."""

    #: seconds of productive running in all
    work_s: float
    #: seconds from the start
    deadline_s: float
    #: seconds billed without progress at each launch and each move
    startup_s: float
    #: seconds between decisions
    tick_s: float
    #: size of the checkpoint
    checkpoint_gb: float
    #: seconds of spot billed for a granted probe
    probe_s: float
    #: where it may run
    zones: tuple[Zone, ...]
    #: USD to move the checkpoint once, [from][to]
    egress_usd: tuple[tuple[float, ...], ...]


@dataclass
class Seen:
    """What is known at a decision."""

    #: seconds since the start
    now_s: float
    #: seconds of productive running still to do
    work_left_s: float
    #: IDLE, SPOT or ON_DEMAND
    mode: str
    #: where it runs, None when idle
    zone: int | None
    #: where the newest checkpoint is, None before the first launch
    home: int | None
    #: seconds of start-up that the running instance still has to pay
    startup_left_s: float
    #: the zone of a spot instance lost since the last tick
    preempted: int | None
    #: by zone
    spot_usd_h: Sequence[float]
    #: by zone
    on_demand_usd_h: Sequence[float]
    #: this tick's actions and outcomes, oldest first
    tried: list[Attempt] = field(default_factory=list)

    @property
    def result(self) -> Attempt | None:
        """The outcome of the last action of this tick."""
        return self.tried[-1] if self.tried else None


@runtime_checkable
class LongJobPolicy(Protocol):
    """An online policy."""

    def start(self, job: SimulatedJob) -> None:
        """A new job; forget the last one."""

    def decide(self, seen: Seen) -> Action | None:
        """What to do now; None when nothing (more) is to be done in this tick."""
