"""What tasks and flows say that they need, and what is said around a call, as whoever sends them finds it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

#: attributes of a function that says what it needs
ATTRIBUTE, BATCH = "__orc_needs__", "__orc_batch__"
#: said around the present call
needs_around: ContextVar[Mapping[str, Any]] = ContextVar("orc_needs", default=MappingProxyType({}))
batch_around: ContextVar[Any] = ContextVar("orc_batch", default=None)


def needs_of(target: Any) -> Mapping[str, Any]:
    """Fields a task or a flow says of itself."""
    found: Mapping[str, Any] = getattr(getattr(target, "fn", target), ATTRIBUTE, {})
    return found


def overrides() -> Mapping[str, Any]:
    """Fields said around the present call."""
    return needs_around.get()


def batch_size(target: Any) -> int | str | None:
    """Items in one task run of a `map` of the target: what is said around the call, else by the task."""
    around = batch_around.get()
    return around if around is not None else getattr(getattr(target, "fn", target), BATCH, None)
