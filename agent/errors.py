"""ORC's exceptions; each message says what, where and what to do.

OrcError
├── SettingError        a setting, a file of pools or a command's argument is wrong
│   ├── PoolError       pools.yaml
│   ├── TraceError      a spot trace that a simulation was given
│   └── UnitError       "16 Gigs"
├── NeedUnmetError      no pool can ever meet a task's needs
├── RejectedError       a person rejected the task, or a rule refused it
├── LedgerError         the ledger cannot be read, written or trusted
│   └── LedgerNewerError  it was written by a newer ORC
├── FencedError         another governor of a newer epoch has taken over
├── GraphError          the knowledge graph cannot be used
│   ├── GraphAwayError      there is none, or it does not answer
│   ├── GraphRefusedError   wrong user or password
│   ├── GraphReadOnlyError  it takes no writes
│   ├── GraphFullError      its disk or memory is full
│   └── GraphClashError     a transaction lost a race for the same key, again and again
├── SimulationError     a simulated policy asked for what there is not, or never settled
├── SchedulerError      the Dask scheduler cannot be governed
└── ServiceError        a service of `orc up` did not start or is already running
"""

from __future__ import annotations


class OrcError(Exception):
    """The root of everything ORC raises on purpose."""


class SettingError(OrcError):
    """A setting is wrong; nothing was started or changed."""


class PoolError(SettingError):
    """A worker pool is declared wrongly."""


class TraceError(SettingError):
    """A trace of prices and availability cannot be used as it is."""


class UnitError(SettingError):
    """A quantity cannot be read."""


class NeedUnmetError(OrcError):
    """No worker pool can ever run the task; raised by the task's future."""


class RejectedError(OrcError):
    """A person or a rule said no; raised by the task's future."""


class LedgerError(OrcError):
    """The ledger cannot be read, written or trusted."""


class LedgerNewerError(LedgerError):
    """The ledger's schema is newer than this ORC."""


class FencedError(OrcError):
    """A governor with a newer epoch governs this scheduler."""


class GraphError(OrcError):
    """The knowledge graph cannot be used."""


class GraphAwayError(GraphError):
    """There is no graph, or it does not answer."""


class GraphRefusedError(GraphError):
    """The graph refuses the user."""


class GraphReadOnlyError(GraphError):
    """The graph takes no writes."""


class GraphFullError(GraphError):
    """The graph's disk or memory is full."""


class GraphClashError(GraphError):
    """A transaction lost a race for the same key."""


class SimulationError(OrcError):
    """A policy under simulation asked for what there is not, or never settled."""


class SchedulerError(OrcError):
    """The Dask scheduler cannot be governed as it is."""


class ServiceError(OrcError):
    """A service of `orc up` did not start, or is already running."""


class InfrastructureLostError(BaseException):
    """The Dask scheduler is gone while a flow waits for its tasks.

    Not an Exception, on purpose: a flow's own `except Exception` must not take it for a task's failure, and Prefect ends
    a flow run that raises it as Crashed, which is what happened.
    """
