"""Money that governors share: limits, reservations and what was spent, in the transaction of what it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert, select, update

from agent.errors import BudgetTakenError
from agent.ledger import schema as t
from agent.ledger.engine import Database
from agent.ledger.upsert import upsert
from agent.model.records import Ended, Placed

if TYPE_CHECKING:
    from agent.model.snapshot import Budget


def declare(database: Database, limits: Mapping[str, int]) -> None:
    """Set the limits of declared budgets, micro-dollars; what is reserved and spent stays."""
    with database.writing() as db:
        for name, limit in limits.items():
            values = {
                "name": name,
                "limit_usd_micros": limit,
                "reserved_usd_micros": 0,
                "spent_usd_micros": 0,
                "overrun_usd_micros": 0,
            }
            db.execute(upsert(db, t.budget, values, ["name"], {"limit_usd_micros": limit}))


def declared(database: Database) -> dict[str, Budget]:
    """Every declared budget as it stands."""
    # not at the top: whoever only reads decisions needs nothing of snapshots
    from agent.model.snapshot import Budget

    with database.reading() as db:
        return {
            row.name: Budget(
                name=row.name,
                limit_usd_micros=row.limit_usd_micros,
                reserved_usd_micros=row.reserved_usd_micros,
                spent_usd_micros=row.spent_usd_micros,
            )
            for row in db.execute(select(t.budget))
        }


def reserve(db: Connection, chain: int, placed: Sequence[Placed]) -> None:
    """Reserve what placements name a budget for. Raises BudgetTakenError."""
    wanted = [(p.id, p.budget, p.reserve_usd_micros) for p in placed if p.budget is not None]
    sums: dict[str, int] = {}
    for _, name, usd in wanted:
        sums[name] = sums.get(name, 0) + usd
    b = t.budget.c
    for name, usd in sorted(sums.items()):
        fits = (b.name == name) & (b.reserved_usd_micros + b.spent_usd_micros + usd <= b.limit_usd_micros)
        done = db.execute(update(t.budget).where(fits).values(reserved_usd_micros=b.reserved_usd_micros + usd))
        if done.rowcount != 1:
            raise BudgetTakenError(f"budget {name} cannot cover {usd} micro-dollars more; another governor was faster")
    if wanted:
        rows = [
            {"chain": chain, "placement": placement, "budget": name, "usd_micros": usd}
            for placement, name, usd in wanted
        ]
        db.execute(insert(t.reservation), rows)


def settle(db: Connection, chain: int, ended: Sequence[Ended]) -> None:
    """Turn what ended placements had reserved into what they spent."""
    if not ended or db.execute(select(t.budget.c.name).limit(1)).first() is None:
        return
    r, b = t.reservation.c, t.budget.c
    spent = {o.placement: o.usd_micros for o in ended}
    is_open = (r.chain == chain) & r.placement.in_(list(spent)) & r.settled_usd_micros.is_(None)
    for row in db.execute(select(t.reservation).where(is_open)).all():
        usd = spent[row.placement]
        db.execute(
            update(t.reservation).where(r.chain == chain, r.placement == row.placement).values(settled_usd_micros=usd)
        )
        db.execute(
            update(t.budget)
            .where(b.name == row.budget)
            .values(
                reserved_usd_micros=b.reserved_usd_micros - row.usd_micros,
                spent_usd_micros=b.spent_usd_micros + usd,
                overrun_usd_micros=b.overrun_usd_micros + max(0, usd - row.usd_micros),
            )
        )
