"""How fast this machine is just now, and the deadline that the demo can keep on it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

#: what the demo takes with room to spare, seconds, on a machine that does `WORK` in `REFERENCE` seconds; as many
#: processes work at once there as the demo has workers of a kind
DEADLINE, REFERENCE, PROCESSES = 180, 0.8, 2
#: a deadline is a multiple of it, seconds
STEP = 15
WORK = """
import time
begin = time.perf_counter()
total = 0
for number in range(6_000_000):
    total += number * number % 7
print(time.perf_counter() - begin)
"""


def slowness(work: str = WORK, processes: int = PROCESSES) -> float:
    """How many times as long it takes now as on the machine of reference, whatever else is going on here."""
    started = [
        subprocess.Popen([sys.executable, "-I", "-c", work], stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    return _slowest([process.communicate()[0] for process in started]) / REFERENCE


def _slowest(said: Sequence[str]) -> float:
    return max(float(seconds) for seconds in said)


def deadline_seconds(times_as_slow: float) -> int:
    """A deadline that follows the machine: work that is late from its start is bought dear and late all the same."""
    return max(DEADLINE, STEP * round(DEADLINE * times_as_slow / STEP))
