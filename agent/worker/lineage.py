"""What a task read and made: named in its body, on record with its outcome, drawn in the graph of the run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

Kind = Literal["dataset", "graph", "model"]

_named: ContextVar[list[tuple[str, str, str]] | None] = ContextVar("orc_lineage", default=None)
#: names one task may give; a task that reads more names a folder
MOST = 100


def reads(address: str, kind: Kind = "dataset") -> None:
    """Say that this task reads a dataset, a graph or a model. Outside of a governed task it does nothing.

    Args:
        address: where it is: a path, or `s3://…`; the same thing has the same address in every task.
    """
    _name("reads", kind, address)


def writes(address: str, kind: Kind = "dataset") -> None:
    """Say that this task makes a dataset, a graph or a model. Outside of a governed task it does nothing."""
    _name("writes", kind, address)


def _name(verb: str, kind: str, address: str) -> None:
    named = _named.get()
    entry = (verb, kind, str(address))
    if named is not None and entry not in named and len(named) < MOST:
        named.append(entry)


@contextlib.contextmanager
def collected() -> Iterator[list[tuple[str, str, str]]]:
    """What is named while the body runs."""
    named: list[tuple[str, str, str]] = []
    token = _named.set(named)
    try:
        yield named
    finally:
        _named.reset(token)
