"""What readers of the ledger get: rows of the named joins, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.model.plans import Decision, Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementView:
    """A placement, with its decision and run."""

    id: int
    key: str
    #: placements whose results it takes in, as the ledger stores them
    upstream: str
    decision: int
    pool: str
    task_class: str
    flow_run: str
    root_run: str
    flow: str
    #: whose work it is, and whose its run is
    team: str
    run_team: str
    deployment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeView(PlacementView):
    """What became of a placement, and the worker it ran on."""

    result: str
    #: 0: none of ours
    lease: int
    start_ms: int
    run_ms: int
    usd_micros: int
    worker: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionView:
    """A decision's row, with its run."""

    id: int
    task_class: str
    pool: str
    verb: Verb
    #: digest of the part that has it whole
    body: bytes
    flow_run: str
    root_run: str
    flow: str
    #: whose work it is, and whose its run is
    team: str
    run_team: str
    deployment: str


class OpenPlacement(NamedTuple):
    """A placement without an outcome."""

    id: int
    key: str
    decision: int
    pool: str
    task_class: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteView:
    """Something said that is neither a decision nor an outcome, with the record that says it."""

    seq: int
    at_ms: int
    #: see `agent.ledger.kinds`
    kind: str
    actor: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunExecution:
    """One placement of a run, with what was decided and what became of it so far."""

    id: int
    key: str
    decision: int
    pool: str
    task_class: str
    decided: Decision
    #: "running" until it has ended
    result: str
    lease: int
    start_ms: int
    run_ms: int
    usd_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedAt:
    """A decision with its number, record and time."""

    id: int
    seq: int
    at_ms: int
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowExecution:
    """An execution of shadow mode: where it would have gone, and the pool whose lease it ran on; None: not ours."""

    pool: str
    verb: str
    start_ms: int
    run_ms: int
    ran_in: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedWell:
    """An execution that was done."""

    placement: int
    #: placement group it was decided in
    group: str
    start_ms: int
    run_ms: int
    usd_micros: int
