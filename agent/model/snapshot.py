"""Everything a plan is made from, as values. The planner sees nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from agent.model.market import MarketBeliefs
from agent.model.needs import Needs
from agent.model.pools import Pool
from agent.model.verdicts import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Numbers of the planner that people may set."""

    #: what an hour of a task's waiting and running is worth, per task, micro-dollars
    delay_usd_micros_per_hour: int = 500_000
    #: deadlines are met with this quantile of the runtime, in standard deviations of its logarithm (1.645: 95 %)
    deadline_sigmas: float = 1.645
    #: and this margin, ms
    margin_ms: int = 2_000
    #: work sent ahead to a worker beyond its slots, ms of it
    ahead_ms: int = 250
    #: and at most so many tasks a slot
    max_ahead: int = 128
    #: worker deaths without notice that are charged to a task before it is refused
    max_losses: int = 4
    #: a preferred pool's score is taken at this many hundredths
    prefer_percent: int = 80
    #: moving a checkpoint to another pool, micro-dollars a GiB
    egress_usd_micros_per_gib: int = 0
    #: hundredths of a task's slack that may be spent on a smaller fleet, in queues
    queue_percent: int = 65
    #: losses and returns of spot capacity that slack is kept for, over what the pools' rates make of it
    reserve_losses: float = 2.0
    #: team → weight of its share of the workers; 1 for teams that are not named
    shares: tuple[tuple[str, int], ...] = ()
    #: tasks that have waited for so long are taken for a priority class higher, ms, and so on
    aging_ms: int = 600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A live worker."""

    name: str
    address: str
    slots: int
    #: slots taken on it, by what runs there or was sent ahead, not counting tasks that lent theirs
    bound: int
    cpus_free: int
    memory_free_mib: int
    gpus_free: int
    #: since when nothing is on it, whoever sent it, ms; None: busy
    idle_since_ms: int | None
    launched_ms: int
    #: expected end of the next bound task, ms; None: idle
    frees_ms: int | None = None
    #: expected ends of all bound tasks, ms, ascending; empty: not known
    ends_ms: tuple[int, ...] = ()
    #: gets no more work
    draining: bool = False
    #: it holds the only copy of a result somebody wants
    only_copy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """A worker that was granted and has not joined yet."""

    name: str
    asked_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """A pool as it is now."""

    pool: Pool
    usd_micros_per_hour: int
    workers: tuple[Worker, ...] = ()
    starting: tuple[Starting, ...] = ()
    #: first of the refusals since the last grant, ms; None: the last launch was granted
    refused_since_ms: int | None = None
    #: earliest next launch attempt, ms
    retry_ms: int = 0
    #: why the last launch failed, where it was not for want of capacity; ""
    fault: str = ""
    #: interruptions per hour, the prior and what was seen
    hazard_per_hour: float = 0.0
    #: start-up as seen, ms; the declared one when nothing was seen
    startup_ms: int = 0
    #: how often an hour capacity comes back once it was refused; 0: not known
    returns_per_hour: float = 0.0
    #: capacity is known to stay until then, ms; None: nobody knows
    lasts_until_ms: int | None = None
    #: and to come back then, ms; None: nobody knows
    back_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """Runtimes of a task class in a pool: count, mean and summed squares of log(ms)."""

    task_class: str
    #: "" for the class over all pools
    pool: str
    n: int
    log_mean: float
    log_m2: float
    #: of the class over all pools: the part of `log_m2` that is within pools
    within_m2: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A sum that flows share."""

    name: str
    limit_usd_micros: int
    reserved_usd_micros: int = 0
    spent_usd_micros: int = 0
    #: longest runtime of tasks that say none, ms
    max_runtime_ms: int | None = None
    #: nothing can be reserved now: the database that keeps it is away
    closed: bool = False

    @property
    def left_usd_micros(self) -> int:
        """What can still be reserved."""
        return self.limit_usd_micros - self.reserved_usd_micros - self.spent_usd_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Placement group: ready tasks that every loaded rule, budget and envelope sees as the same."""

    id: str
    task_class: str
    #: what people read
    name: str
    needs: Needs
    root_run: str
    flow_run: str
    #: whose share of the workers it takes
    team: str = ""
    #: tasks ready now, > 0
    ready: int
    #: since the first of them waits, ms
    since_ms: int
    #: the highest of Dask's own `priority=` among them, in thousandths: an order within a priority class
    dask_priority: int = 0
    verdicts: tuple[Verdict, ...] = ()
    #: absolute deadline of the root run, ms
    deadline_ms: int | None = None
    #: from these tasks' end to the end of the root run, ms: the longest path behind them as far as it is known, then
    #: learned
    tail_ms: int = 0
    #: work a checkpoint keeps, ms of it
    done_ms: int = 0
    #: the pool it was left in, and its size, MiB
    checkpoint_pool: str = ""
    checkpoint_mib: int = 0
    #: workers lost under these tasks: preempted and otherwise
    preemptions: int = 0
    losses: int = 0
    #: memory with which tasks of the class ran out of it, MiB; `needs` asks for more. 0: never seen
    starved_mib: int = 0
    #: how its tasks were made of smaller ones, in words; "": they were not
    chunk: str = ""
    #: a person's choice of pool
    override: str | None = None
    #: rules a person has approved for this group, and who
    approved: tuple[str, ...] = ()
    #: the pools the approval was about: its envelope
    approved_pools: tuple[str, ...] = ()
    approved_by: str | None = None
    #: most dollars that were approved, micro-dollars
    approved_usd_micros: int | None = None
    rejected_by: str | None = None

    @property
    def may_be_long(self) -> bool:
        """Interruptible, with checkpoints and a deadline: a long job, where it takes hours."""
        needs = self.needs
        return needs.interruptible and bool(needs.checkpoint_ms) and self.deadline_ms is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is left of a root run, as far as one can see."""

    root_run: str
    deadline_ms: int | None = None
    #: expected time of all its tasks that have not ended, ms
    work_ms: int = 0
    #: longest path through them, ms
    path_ms: int = 0
    #: tasks that have not ended, and those of them that are not ready yet
    tasks: int = 0
    ahead: int = 0
    #: when the first of its running tasks is expected to end, ms; None: nothing of it runs
    next_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running task that may be worth moving: much slower than expected,
    or on demand with a checkpoint to go on from.
    """

    placement: int
    #: as it would be if it were decided now, from its last checkpoint
    group: Group
    pool: str
    ran_ms: int
    expected_ms: int
    #: it has checkpoints, so it can leave
    leaves: bool
    #: until its next checkpoint, ms, by the interval it declares; 0: not known
    leaves_ms: int = 0
    #: other tasks on its worker
    beside: int = 0
    #: pool it was told to leave for and has not left for yet; ""
    leaves_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Slots that a root run's tasks take now."""

    team: str
    root_run: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The input of one planning round."""

    now_ms: int
    #: version of the planner that made the plan
    planner: str
    rules_digest: str
    seed: int
    policy: Policy
    pools: tuple[PoolState, ...] = ()
    groups: tuple[Group, ...] = ()
    statistics: tuple[Statistic, ...] = ()
    budgets: tuple[Budget, ...] = ()
    runs: tuple[Run, ...] = ()
    #: who has the workers now; empty when one run alone waits
    usage: tuple[Usage, ...] = ()
    #: tasks that may be worth moving
    running: tuple[Running, ...] = ()
    #: workers that somebody waits for without a task that could be held, in all, and who
    wanted_workers: int = 0
    wanted_why: str = ""
    #: what is believed of the zones; empty where no task may be a long job
    markets: tuple[MarketBeliefs, ...] = ()
    #: runs are known by their graphs: what is not in `runs` is not known to come
    graphs: bool = False
