"""Counts since the governor began: plain numbers, which whoever asks turns into a page. No I/O."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

#: upper bounds of actual ÷ expected runtime
RATIOS = (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0, float("inf"))


@dataclass(slots=True)
class Tally:
    """Counts since the governor began. Plain numbers: whoever asks turns them into a page."""

    #: (verb, pool) → decisions that said something new
    decisions: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: pool → tasks sent
    placements: Counter[str] = field(default_factory=Counter)
    #: (pool, result) → outcomes
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: tasks that were bound again after a loss, by the pool they went to
    moves: Counter[str] = field(default_factory=Counter)
    #: (pool, cause) → micro-dollars of leases that ended
    lease_usd_micros: Counter[tuple[str, str]] = field(default_factory=Counter)
    #: index into RATIOS → executions; and the sum of the ratios
    ratios: Counter[int] = field(default_factory=Counter)
    ratio_sum: float = 0.0

    def ran(self, expected_ms: int, run_ms: int) -> None:
        """An execution ended well: how far off was the estimate?"""
        if expected_ms <= 0 or run_ms <= 0:
            return
        ratio = run_ms / expected_ms
        self.ratio_sum += ratio
        self.ratios[next(at for at, bound in enumerate(RATIOS) if ratio <= bound)] += 1
