"""What is the same for every policy of a simulation, and what a simulation comes to."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.model.snapshot import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSetting:
    """What is the same for every policy."""

    seed: int = 0
    #: policies know each task's runtime (to within 5 %, rounded up); else what their classes' history says
    exact: bool = True
    #: spread of one execution's runtime around the workflow's, standard deviation of its logarithm; 0 when exact
    noise: float = 0.15
    #: executions of each workflow that history holds at the start
    history: int = 3
    policy: Policy = field(default_factory=Policy)
    #: shortest time between two plans, ms
    round_ms: int = 1_000
    #: longest time between two plans while a task waits, ms
    tick_ms: int = 300_000
    #: a refused launch is answered so much later, ms; it costs nothing else
    refusal_ms: int = 30_000
    #: and asked again at most so much later, ms
    retry_ms: int = 300_000
    #: a checkpoint that moves to another pool costs so much, micro-dollars a GiB
    egress_usd_micros_per_gib: int = 0
    #: policies are told when capacity goes and comes: only for schedules built in hindsight
    clairvoyant: bool = False
    #: policies are told what of each job is still to come, so that no worker idles for nothing
    graphs: bool = True
    #: keep every execution, for pictures
    keep_executions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A worker's life, in the simulation's time."""

    pool: str
    name: str
    granted_ms: int
    ready_ms: int
    ended_ms: int
    cause: str
    usd_micros: int
    #: slot-ms of work that counted, and of work that was lost
    busy_ms: int
    lost_ms: int
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """What a simulation came to."""

    usd_micros: int
    egress_usd_micros: int
    by_pool: dict[str, int]
    #: job → instant of its end, ms; absent: it never ended
    ends: dict[str, int]
    deadlines: dict[str, int | None]
    #: job → its share of the leases, by the slots and time it used of each, micro-dollars
    by_job: dict[str, int]
    spans: tuple[Span, ...]
    executions: tuple[tuple[str, str, str, int, int, str], ...]
    preemptions: int
    #: tasks that left on-demand workers at a checkpoint, to go on on spot
    moves: int
    refusals: int
    events: int
    rounds: int

    @property
    def missed(self) -> tuple[str, ...]:
        """Jobs that ended after their deadline, or never."""
        return tuple(
            sorted(
                job
                for job, deadline in self.deadlines.items()
                if job not in self.ends or (deadline is not None and self.ends[job] > deadline)
            )
        )
