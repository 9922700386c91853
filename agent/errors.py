"""ORC's exceptions; each message says what, where and what to do.

OrcError
├── SettingError        a setting, a file of pools or a command's argument is wrong
│   ├── PoolError       pools.yaml
│   │   └── PriceError      a price by name that nobody tells, or that is none
│   ├── UnitError       "16 Gigs"
│   ├── WorkflowError   a workflow that cannot be: cyclic, dangling, negative runtimes
│   └── TraceError      a spot trace or a price that cannot be used
├── NeedUnmetError      no pool can ever meet a task's needs
├── TaskError           a task cannot be sent to a worker as it is
│   ├── CheckpointError     a task's checkpoint cannot be used
│   └── ItemsFailedError    items of a chunk failed, others may have succeeded
├── RejectedError       a person rejected the task, or a rule refused it
├── ProviderError       a worker could not be launched
│   ├── NoCapacityError     the market has none now: its capacity is learned from it
│   └── LaunchFaultError    by a fault that is not the market's: an image, a quota, a right
├── LedgerError         the ledger cannot be read, written or trusted
│   ├── BudgetTakenError    another governor reserved the money first
│   ├── LedgerNewerError  it was written by a newer ORC
│   ├── LedgerAwayError   its database cannot be reached now
│   └── LedgerPartError   content that a record names is not there
├── FencedError         another governor of a newer epoch has taken over
├── GraphError          the knowledge graph cannot be used
│   ├── GraphAwayError      there is none, or it does not answer
│   ├── GraphRefusedError   wrong user or password
│   ├── GraphVersionError   its server and our driver speak no common version of Bolt
│   ├── GraphReadOnlyError  it takes no writes
│   ├── GraphFullError      its disk or memory is full
│   └── GraphClashError     a transaction lost a race for the same key, again and again
├── RequestError        what is asked of the governor's API cannot be done
│   ├── NotAllowedError     the caller is not one of this instance
│   ├── NotThereError       what it is about is not there
│   ├── TooLateError        somebody else was first, or it is over
│   └── RecordAwayError     it cannot be put on record now
├── SchedulerError      the Dask scheduler cannot be governed
│   └── InstructionError    what the extension is told is not in its form: nothing of it was done
├── SimulationError     a simulated policy broke the rules of its world
└── ServiceError        a service of `orc up` did not start or is already running
"""

from __future__ import annotations


class OrcError(Exception):
    """The root of everything ORC raises on purpose."""


class SettingError(OrcError):
    """A setting is wrong; nothing was started or changed."""


class PoolError(SettingError):
    """A worker pool is declared wrongly."""


class PriceError(PoolError):
    """A price is asked for by a name that nobody knows, or what is told is no price."""


class UnitError(SettingError):
    """A quantity cannot be read."""


class WorkflowError(SettingError):
    """A workflow cannot be simulated as it is."""


class SimulationError(OrcError):
    """A policy under simulation asked for what there is not, or never settled."""


class TraceError(SettingError):
    """A spot trace or a price cannot be used."""


class NeedUnmetError(OrcError):
    """No worker pool can ever run the task; raised by the task's future."""


class TaskError(OrcError):
    """A task, or a parameter of it, cannot be sent to a worker; raised at submit."""


class CheckpointError(TaskError):
    """A checkpoint was written by another version, or cannot be read or written."""


class ItemsFailedError(TaskError):
    """Items of a chunk failed; `outcomes` holds what became of each."""

    def __init__(self, message: str, outcomes: object) -> None:
        super().__init__(message, outcomes)
        self.outcomes = outcomes

    def __str__(self) -> str:
        return str(self.args[0])


class RejectedError(OrcError):
    """A person or a rule said no; raised by the task's future."""


class ProviderError(OrcError):
    """A worker could not be launched."""


class NoCapacityError(ProviderError):
    """The market has no capacity now; the message says why."""


class LaunchFaultError(ProviderError):
    """A launch failed by a fault that is not the market's; the message says which."""


class LedgerError(OrcError):
    """The ledger cannot be read, written or trusted."""


class BudgetTakenError(LedgerError):
    """Another governor reserved the money first; nothing was written."""


class LedgerNewerError(LedgerError):
    """The ledger's schema is newer than this ORC."""


class LedgerAwayError(LedgerError):
    """The ledger's database cannot be reached now."""


class LedgerPartError(LedgerError):
    """Content that a record names is not in the ledger."""


class FencedError(OrcError):
    """A governor with a newer epoch governs this scheduler."""


class GraphError(OrcError):
    """The knowledge graph cannot be used."""


class GraphAwayError(GraphError):
    """There is no graph, or it does not answer."""


class GraphRefusedError(GraphError):
    """The graph refuses the user."""


class GraphVersionError(GraphError):
    """The graph's server and the driver have no version of Bolt in common."""


class GraphReadOnlyError(GraphError):
    """The graph takes no writes."""


class GraphFullError(GraphError):
    """The graph's disk or memory is full."""


class GraphClashError(GraphError):
    """A transaction lost a race for the same key."""


class RequestError(OrcError):
    """A request to the API cannot be done; the message says why, and what to do."""

    #: of HTTP
    status = 400


class NotAllowedError(RequestError):
    """The caller is not one of this instance."""

    status = 403


class NotThereError(RequestError):
    """What a request is about is not there."""

    status = 404


class TooLateError(RequestError):
    """Somebody else was first, or it is over."""

    status = 409


class RecordAwayError(RequestError):
    """It cannot be put on record now."""

    status = 503


class SchedulerError(OrcError):
    """The Dask scheduler cannot be governed as it is."""


class InstructionError(SchedulerError):
    """What the extension is told is not in its form: nothing of it was done."""


class ServiceError(OrcError):
    """A service of `orc up` did not start, or is already running."""


class InfrastructureLostError(BaseException):
    """The Dask scheduler is gone while a flow waits for its tasks.

    Not an Exception, on purpose: a flow's own `except Exception` must not take it for a task's failure, and Prefect
    ends a flow run that raises it as Crashed, which is what happened.
    """
