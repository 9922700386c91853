"""What goes over the API. Requests are strict: what is not named is refused, and nothing is read as another type."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Name = Annotated[str, Field(min_length=1, max_length=200)]
_Text = Annotated[str, Field(max_length=2_000)]


class Request(BaseModel):
    """The root of what is asked."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Answer(Request):
    """A person's answer to a question."""

    #: the beginning of its id, or of the name of its group
    id: Annotated[str, Field(min_length=8, max_length=64, pattern=r"^[0-9a-f]+$")]
    #: who answers: a claim, and recorded as one
    by: _Name
    why: _Text = ""
    #: most dollars that are approved, micro-dollars; none: as many as it takes
    usd_micros: Annotated[int, Field(ge=0, le=10**15)] | None = None


class Override(Request):
    """A person's choice of a pool for tasks that wait."""

    #: part of a task's key, or the beginning of its group's name
    task: Annotated[str, Field(min_length=4, max_length=500)]
    pool: _Name
    by: _Name
    why: _Text = ""


class Reply(BaseModel):
    """The root of what is answered."""

    model_config = ConfigDict(extra="forbid")


class Failure(Reply):
    """Why not, as a sentence with what to do."""

    error: str


class Answered(Reply):
    """An answer was taken."""

    task: str
    #: tasks it is about
    count: int
    answer: str


class Overridden(Reply):
    """A choice was taken."""

    groups: list[str]
    pool: str


class WorkerReport(Reply):
    """A live worker."""

    name: str
    bound: int
    slots: int
    #: since it has nothing to do; none: it is busy
    idle_ms: int | None
    draining: bool


class PoolReport(Reply):
    """A worker pool as it stands."""

    pool: str
    kind: str
    size: str
    usd_micros_per_hour: int
    max: int
    priced: bool
    workers: list[WorkerReport]
    starting: list[str]
    #: of a worker that runs for a day: interruptions expected, and the 90 % interval; none: it is not of the spot
    #: market
    losses_a_day: tuple[float, int, int] | None
    refused_ms: int | None
    #: why the last launch failed, where it was not for want of capacity
    fault: str


class RulesReport(Reply):
    """The rules in force."""

    count: int
    digest: str
    #: why the files are refused; "": they are in force
    wrong: str


class Status(Reply):
    """The governor and its pools."""

    mode: str
    epoch: int
    degraded: list[str]
    warnings: list[str]
    pools: list[PoolReport]
    running: int
    held: int
    open_usd_micros: int
    scheduler: str
    through: int
    spooled: int
    rules: RulesReport
    plan_ms: dict[str, float]
    commit_ms: dict[str, float]


class HoldLine(Reply):
    """Tasks that wait, and what releases them."""

    task: str
    count: int
    reason: str
    why: str
    since: str
    release: str
    #: of the question to a person, or of the group; "": it waits for inputs
    id: str


class RunningLine(Reply):
    """A task that is bound."""

    task: str
    pool: str
    worker: str
    since: Annotated[str, Field(serialization_alias="for")]


class Why(Reply):
    """Why a run is not running."""

    holds: list[HoldLine]
    running: list[RunningLine]


class Holds(Reply):
    """Every hold as the plan has it."""

    holds: list[dict[str, object]]
    now_ms: int
