"""Inserts that do not mind a row that is there, in the dialect of the database."""

from __future__ import annotations

import importlib
from typing import Any

from sqlalchemy import Connection, Table


def upsert(db: Connection, table: Table, values: dict[str, Any], keys: list[str], change: dict[str, Any]) -> Any:
    """An insert that changes the row of these keys where it is there; without a change, leaves it as it is."""
    # the dialect in use is loaded already; the other one takes a tenth of a second, and only readers notice
    dialect = importlib.import_module(f"sqlalchemy.dialects.{db.dialect.name}")
    statement = dialect.insert(table).values(**values)
    return (
        statement.on_conflict_do_update(index_elements=keys, set_=change)
        if change
        else statement.on_conflict_do_nothing(index_elements=keys)
    )
