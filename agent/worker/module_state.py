"""Does a function keep anything between two calls? One that surely does not need not be made anew for each."""

from __future__ import annotations

import datetime
import decimal
import dis
import enum
import sys
import types
import uuid
from collections.abc import Iterator
from typing import Any

_CONSTANT = (
    int, float, complex, str, bytes, bool, type(None), range, datetime.date, datetime.time, datetime.timedelta,
    decimal.Decimal, uuid.UUID, enum.Enum,
)  # fmt: skip
#: instructions by which code changes what outlives its call
_CHANGES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR"})


def is_stateless(function: Any) -> bool:
    """Whether nothing that travels with a function can change.

    Its globals, closure and defaults, and those of what it calls.

    When in doubt, False. What it reaches by import is the worker's own, and shared in any case.
    """
    return isinstance(function, types.FunctionType) and _by_value(function, set())


def _by_value(function: types.FunctionType, seen: set[int]) -> bool:
    if id(function) in seen:
        return True
    seen.add(id(function))
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
    values = [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for code in _codes(function.__code__):
        for step in dis.get_instructions(code):
            if step.opname in _CHANGES or (step.opname == "STORE_DEREF" and step.argval in code.co_freevars):
                return False
        values += [function.__globals__[name] for name in code.co_names if name in function.__globals__]
    return all(_unchanging(value, seen) for value in values)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """It, and those of functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _unchanging(value: Any, seen: set[int]) -> bool:
    if isinstance(value, _CONSTANT):
        return True
    if isinstance(value, (tuple, frozenset)):
        return all(_unchanging(each, seen) for each in value)
    if isinstance(value, (types.ModuleType, types.BuiltinFunctionType)) or _imported(value):
        return True
    return isinstance(value, types.FunctionType) and _by_value(value, seen)


def _imported(value: Any) -> bool:
    """Whether it travels as a name, which the worker imports."""
    if not isinstance(value, (types.FunctionType, type)) or value.__module__ == "__main__":
        return False
    found: Any = sys.modules.get(value.__module__)
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value
