"""Every join of the ledger's tables, by name. A query here is a value: `agent.ledger.reader` and `history` run it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select, true

from agent.ledger import schema as t
from agent.model.outcomes import Result

_p, _o, _d, _r, _l, _rec = t.placement.c, t.outcome.c, t.decision.c, t.run.c, t.lease.c, t.record.c

_OF_DECISION = (_d.chain == _p.chain) & (_d.id == _p.decision)
_OF_RUN = (_r.chain == _d.chain) & (_r.no == _d.run)
_OF_OUTCOME = (_o.chain == _p.chain) & (_o.placement == _p.id)
_OF_LEASE = (_l.chain == _o.chain) & (_l.id == _o.lease)
#: ledgers of before say the team of the run only
_TEAM = case((_d.team != "", _d.team), else_=_r.team).label("team")
_RUN = (_r.flow_run, _r.root_run, _r.flow, _TEAM, _r.team.label("run_team"), _r.deployment)
_PLACED = (_p.id, _p.key, _p.upstream, _p.decision, _d.pool, _d.task_class, *_RUN)
_RAN = (_o.result, _o.lease, _o.start_ms, _o.run_ms)
#: pool of the worker an execution was on
_RAN_IN = case((_o.ran_in != "", _o.ran_in), else_=_d.pool).label("pool")


def _decided() -> Any:
    return t.placement.join(t.decision, _OF_DECISION).join(t.run, _OF_RUN)


# ---------------------------------------------------------------------- of one record
def records(chain: int, after: int, limit: int, kinds: Collection[str]) -> Select[Any]:
    """Records behind a number, oldest first; of some kinds, where any are given."""
    of_kind: ColumnElement[bool] = _rec.kind.in_(sorted(kinds)) if kinds else true()
    query = select(t.record).where(_rec.chain == chain, _rec.seq > after, of_kind)
    return query.order_by(_rec.seq).limit(limit)


def placements_of_record(chain: int, seq: int) -> Select[Any]:
    """Placements of a record, with their decision and run."""
    query = select(*_PLACED).select_from(_decided())
    return query.where(_p.chain == chain, _p.seq == seq).order_by(_p.id)


def outcomes_of_record(chain: int, seq: int) -> Select[Any]:
    """Outcomes of a record, with their placement, its decision and run, and the worker it ran on."""
    joined = _decided().join(t.outcome, _OF_OUTCOME).outerjoin(t.lease, _OF_LEASE)
    columns = (*_PLACED, _o.result, _o.lease, _o.start_ms, _o.run_ms, _o.usd_micros, _l.worker)
    query = select(*columns).select_from(joined)
    return query.where(_o.chain == chain, _o.seq == seq).order_by(_o.placement)


def decisions_of_record(chain: int, seq: int) -> Select[Any]:
    """Decisions of a record, with their run."""
    query = select(_d.id, _d.task_class, _d.pool, _d.verb, _d.body, *_RUN)
    query = query.select_from(t.decision.join(t.run, _OF_RUN))
    return query.where(_d.chain == chain, _d.seq == seq).order_by(_d.id)


def first_since(chain: int, since_ms: int) -> Select[Any]:
    """Number of the first record at or after an instant."""
    return select(func.min(_rec.seq)).where(_rec.chain == chain, _rec.at_ms >= since_ms)


def newest_of_kind(chain: int, kind: str) -> Select[Any]:
    """The newest record of a kind."""
    return select(t.record).where(_rec.chain == chain, _rec.kind == kind).order_by(_rec.seq.desc()).limit(1)


# ---------------------------------------------------------------------- of the whole chain
def open_placements(chain: int) -> Select[Any]:
    """Placements without an outcome."""
    joined = t.placement.join(t.decision, _OF_DECISION).outerjoin(t.outcome, _OF_OUTCOME)
    query = select(_p.id, _p.key, _p.decision, _d.pool, _d.task_class).select_from(joined)
    return query.where(_p.chain == chain, _o.placement.is_(None)).order_by(_p.id)


def executions(chain: int, limit: int) -> Select[Any]:
    """The newest outcomes with what they were of, newest first: in the order of records, then of their ends."""
    of = (_o.placement, _d.task_class, _RAN_IN, _r.root_run)
    columns = (*of, *_RAN, _o.usd_micros, _o.ran_in, _o.spared_ms, _o["items"])
    query = select(*columns).select_from(_decided().join(t.outcome, _OF_OUTCOME)).where(_o.chain == chain)
    return query.order_by(_o.seq.desc(), (_o.start_ms + _o.run_ms).desc(), _o.placement.desc()).limit(limit)


def next_numbers(chain: int) -> Select[Any]:
    """The first unused numbers of decisions, placements, leases and runs."""
    columns = {"decision": _d.id, "placement": _p.id, "lease": _l.id, "run": _r.no}
    firsts = {name: select(func.coalesce(func.max(column), 0) + 1) for name, column in columns.items()}
    return select(
        *(
            firsts[name].where(column.table.c.chain == chain).scalar_subquery().label(name)
            for name, column in columns.items()
        )
    )


# ---------------------------------------------------------------------- of reports
def runs_of(chain: int, run: str) -> Select[Any]:
    """The flow run of an id, or those below the root run of that id."""
    return select(t.run).where(_r.chain == chain, (_r.flow_run == run) | (_r.root_run == run))


def placements_of_runs(chain: int, numbers: Collection[int]) -> Select[Any]:
    """Placements of some runs, with their decision's body, and what became of them so far."""
    joined = t.placement.join(t.decision, _OF_DECISION).outerjoin(t.outcome, _OF_OUTCOME)
    columns = (_p.id, _p.key, _p.decision, _d.pool, _d.task_class, _d.body, *_RAN, _o.usd_micros)
    query = select(*columns).select_from(joined)
    return query.where(_p.chain == chain, _d.run.in_(numbers)).order_by(_p.id)


def decisions_of_runs(chain: int, numbers: Collection[int]) -> Select[Any]:
    """How many decisions some runs have."""
    return select(func.count()).select_from(t.decision).where(_d.chain == chain, _d.run.in_(numbers))


def decisions_since(chain: int, since_ms: int) -> Select[Any]:
    """Decisions of records from an instant on, with the record's time."""
    joined = t.decision.join(t.record, (_rec.chain == _d.chain) & (_rec.seq == _d.seq))
    query = select(_d.id, _d.seq, _d.body, _rec.at_ms).select_from(joined)
    return query.where(_d.chain == chain, _rec.at_ms >= since_ms).order_by(_d.id)


def placed_since(chain: int, since_ms: int) -> Select[Any]:
    """How many tasks were placed since an instant, by the body of what was decided, also before."""
    of_record = (_rec.chain == _p.chain) & (_rec.seq == _p.seq)
    joined = t.placement.join(t.record, of_record).join(t.decision, _OF_DECISION)
    query = select(_d.body, func.max(_d.id).label("id"), func.count().label("tasks")).select_from(joined)
    return query.where(_p.chain == chain, _rec.at_ms >= since_ms).group_by(_d.body)


def shadowed_since(chain: int, since_ms: int) -> Select[Any]:
    """Executions of shadow mode that began since an instant: what was decided, and the pool of the lease it ran on."""
    of_record = (_rec.chain == _p.chain) & (_rec.seq == _p.seq)
    joined = t.placement.join(t.decision, _OF_DECISION).join(t.record, of_record).join(t.outcome, _OF_OUTCOME)
    query = select(_d.pool, _d.verb, _o.start_ms, _o.run_ms, _l.pool.label("ran_in"))
    query = query.select_from(joined.outerjoin(t.lease, _OF_LEASE))
    return query.where(_p.chain == chain, _rec.mode == "shadow", _o.run_ms > 0, _o.start_ms >= since_ms)


def ended_well(chain: int) -> Select[Any]:
    """Executions that were done, with their decision's body."""
    joined = t.placement.join(t.decision, _OF_DECISION).join(t.outcome, _OF_OUTCOME)
    query = select(_p.id, _p.decision, _d.body, _o.start_ms, _o.run_ms, _o.usd_micros).select_from(joined)
    return query.where(_o.chain == chain, _o.result == t.RESULT_CODE[Result.DONE], _o.run_ms > 0)


# ---------------------------------------------------------------------- of decisions, found by what people know of them
def newest_decisions(chain: int, most: int) -> Select[Any]:
    """Numbers of the newest decisions, newest first."""
    return select(_d.id).where(_d.chain == chain).order_by(_d.id.desc()).limit(most)


def newest_decisions_of_run(chain: int, run: str, most: int) -> Select[Any]:
    """Numbers of the newest decisions of flow runs whose id, or whose root run's id, begins so."""
    begins = _r.flow_run.startswith(run, autoescape=True) | _r.root_run.startswith(run, autoescape=True)
    query = select(_d.id).select_from(t.decision.join(t.run, _OF_RUN)).where(_d.chain == chain, begins)
    return query.order_by(_d.id.desc()).limit(most)


def run_ids(chain: int, beginning: str) -> Select[Any]:
    """Ids of flow runs and root runs that begin so."""
    ids = [
        select(column.label("id")).where(_r.chain == chain, column.startswith(beginning, autoescape=True))
        for column in (_r.flow_run, _r.root_run)
    ]
    return select(ids[0].union(ids[1]).subquery())


def decisions_with_bodies(chain: int, ids: Collection[int]) -> Select[Any]:
    """Decisions by their numbers, oldest first, with their record's time and, where it is there, their body."""
    joined = t.decision.join(t.record, (_rec.chain == _d.chain) & (_rec.seq == _d.seq))
    joined = joined.outerjoin(t.part, t.part.c.digest == _d.body)
    query = select(_d.id, _d.seq, _rec.at_ms, t.part.c.body).select_from(joined)
    return query.where(_d.chain == chain, _d.id.in_(ids)).order_by(_d.id)


def placements_named(chain: int, task: str) -> Select[Any]:
    """Placements of tasks whose key has this in it, with or without dashes, and what became of them."""
    joined = t.placement.outerjoin(t.outcome, _OF_OUTCOME)
    wanted = _p.key.contains(task.replace("-", ""), autoescape=True) | _p.key.contains(task, autoescape=True)
    query = select(_p.id, _p.key, _p.decision, _o.result, _o.run_ms).select_from(joined)
    return query.where(_p.chain == chain, wanted).order_by(_p.id)
