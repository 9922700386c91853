"""What a plan says: decisions with their arithmetic, and what to do about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.model.verdicts import RuleVerb

HoldReason = Literal["inputs", "capacity", "launch", "spot", "approval", "budget", "rejected"]
Verb = Literal["bind", "wait", "ask", "refuse", "move", "leave"]
#: tests of a pool, in the order of `planner.feasible`; "": it passes; "emulated": it passes, and another one does too
Block = Literal["", "gpu", "cpus", "memory", "resources", "market", "rule", "override", "no workers", "emulated"]
Source = Literal["history", "class history", "author", "prior"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Runtime of a class in a pool, log-normal."""

    median_ms: int
    mean_ms: int
    #: the quantile deadlines are met with
    high_ms: int
    #: executions it rests on
    n: int
    source: Source


@dataclass(slots=True, kw_only=True, unsafe_hash=True)
class Option:
    """One pool for one group, with its arithmetic; micro-dollars are those of one task.

    Not frozen, though nothing changes it: one is made for every pool of every decision, and that takes a third of the
    time so.
    """

    pool: str
    kind: str
    #: "" when the pool is feasible, else why not, in words
    why_not: str = ""
    #: the test that it fails, and the rule, where that is a rule's; "": none, or it was decided by an older planner
    block: Block = ""
    block_rule: str = ""
    estimate: Estimate | None = None
    #: tasks it can take now
    room: int = 0
    #: expected wait of the group's tasks, ms
    wait_ms: int = 0
    #: expected runtime with interruptions, ms
    run_ms: int = 0
    work_usd_micros: int = 0
    startup_usd_micros: int = 0
    idle_usd_micros: int = 0
    interruption_usd_micros: int = 0
    #: what its wait and its runtime are worth
    delay_usd_micros: int = 0
    #: rules that prefer it
    preferred_by: tuple[str, ...] = ()
    #: all of the above, preferred pools at a discount; the least wins
    score_usd_micros: int = 0
    #: lateness at the deadline's quantile, a loss on spot made good on demand, ms; None: no deadline
    late_ms: int | None = None
    #: expected dollars of doing it on demand after all, when spot does not come back in time
    fallback_usd_micros: int = 0
    #: moving its checkpoint there
    move_usd_micros: int = 0
    #: what the whole rest of a long job is expected to cost when it goes there now, moves and losses included; None: no
    #: such job
    to_go_usd_micros: int | None = None
    #: waiting tasks it can still take in time
    takes: int = 0
    #: workers it would launch
    launch: int = 0
    #: why the tasks would wait, when there is no room
    waits_for: HoldReason | None = None

    @property
    def usd_micros(self) -> int:
        """Expected dollars of one task."""
        return (
            self.work_usd_micros
            + self.startup_usd_micros
            + self.idle_usd_micros
            + self.interruption_usd_micros
            + self.fallback_usd_micros
            + self.move_usd_micros
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleWord:
    """What one rule said of a group, as a decision keeps it."""

    rule: str
    verb: RuleVerb
    reason: str

    def __str__(self) -> str:
        return f"{self.rule} ({self.verb}): {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided for a group, and everything it was decided from."""

    group: str
    task_class: str
    name: str
    root_run: str
    flow_run: str
    verb: Verb
    #: the pool tasks are bound to or wait for
    pool: str | None
    reason: str
    #: what ends the wait; "" when nothing waits
    release: str = ""
    #: every pool, best first, the infeasible last
    options: tuple[Option, ...]
    #: what the deadline leaves, ms, and what a minute of a task's delay is worth by it, micro-dollars; None: no
    #: deadline
    slack_ms: int | None = None
    minute_usd_micros: int | None = None
    #: what each rule said
    verdicts: tuple[RuleWord, ...] = ()
    #: the rule that asks a person; ""
    asked_by: str = ""
    approved_by: str | None = None
    overridden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """Send the group's first waiting tasks to a pool."""

    group: str
    pool: str
    count: int
    #: index into Plan.decisions
    decision: int
    #: tasks a slot beyond the running one
    ahead: int
    #: reserved for each task, micro-dollars; 0 without a budget
    reserve_usd_micros: int = 0
    budget: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Ask a pool's provider for workers."""

    pool: str
    count: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """End an idle worker."""

    pool: str
    worker: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw:
    """Take back what a worker has not started."""

    worker: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A running task is to leave its worker at its next checkpoint."""

    placement: int
    #: where it can go on then
    pool: str
    why: str
    decision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Tasks of a group that stay held."""

    group: str
    count: int
    reason: HoldReason
    #: what they wait for, in words
    why: str
    #: what releases them
    release: str
    decision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Tasks of a group that can never run."""

    group: str
    why: str
    decision: int
    #: a person's no, rather than a need nobody meets
    rejected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The output of one planning round."""

    decisions: tuple[Decision, ...] = ()
    binds: tuple[Bind, ...] = ()
    launches: tuple[Launch, ...] = ()
    drains: tuple[Drain, ...] = ()
    withdraws: tuple[Withdraw, ...] = ()
    waits: tuple[Wait, ...] = ()
    refusals: tuple[Refuse, ...] = ()
    moves: tuple[Move, ...] = ()
    #: time alone will change the plan then, ms: a latest start; None: not before something happens
    replan_at_ms: int | None = None

    @property
    def acts(self) -> bool:
        """Whether anything changes."""
        return bool(self.binds or self.launches or self.drains or self.withdraws or self.refusals or self.moves)
