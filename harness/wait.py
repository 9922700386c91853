"""Waiting for a condition, in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def within(condition: Callable[[], Any], seconds: float, every: float = 0.05) -> Any:
    """A condition's value once it is true, or its last one when the time is up."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(every)
    return value


def until(condition: Callable[[], Any], seconds: float = 30.0, every: float = 0.05) -> Any:
    """The first true value of a condition. Raises TimeoutError, with the condition's docstring, when the time is up."""
    value = within(condition, seconds, every)
    if not value:
        raise TimeoutError(f"not within {seconds} s: {getattr(condition, '__doc__', None) or condition}")
    return value
