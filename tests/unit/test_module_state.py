"""Which functions keep nothing between two calls, so that the items of a chunk may share one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from agent.worker.module_state import is_stateless

RATE = 0.2
LIMITS = (1, ("a", None))
SEEN: list[int] = []
RANDOM = random.Random(1)


def plain(n: int) -> float:
    return math.sqrt(n) * RATE + len(LIMITS)


def calls(n: int) -> float:
    return plain(n)


def appends(n: int) -> None:
    SEEN.append(n)


def calls_one_that_appends(n: int) -> Callable[[], None]:
    return lambda: _kept(n)


def _kept(n: int) -> None:
    SEEN.append(n)


def draws(_: int) -> float:
    return RANDOM.random()


def counts(_: int) -> None:
    global COUNT
    COUNT = 1


def marks(_: int) -> None:
    calls.seen = True  # type: ignore[attr-defined]


def remembers(n: int, seen: list[int] = []) -> None:  # noqa: B006
    seen.append(n)


def closed() -> Callable[[], int]:
    n = 0

    def step() -> int:
        nonlocal n
        n += 1
        return n

    return step


def within(limit: int) -> Callable[[int], bool]:
    return lambda n: n < limit


@pytest.mark.parametrize("function", [plain, calls, within(3)])
def test_what_uses_constants_modules_and_such_functions_keeps_nothing(function: Any) -> None:
    assert is_stateless(function)


@pytest.mark.parametrize("function", [appends, draws, counts, marks, remembers, closed(), within([])])  # type: ignore[arg-type]
def test_what_could_keep_something_does(function: Any) -> None:
    assert not is_stateless(function)


def test_a_helper_that_travels_by_value_is_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    # an imported one is the worker's own, as in any runner
    assert is_stateless(calls_one_that_appends)
    monkeypatch.setattr(_kept, "__module__", "__main__")
    assert not is_stateless(calls_one_that_appends)
