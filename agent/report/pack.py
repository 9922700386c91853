"""The same executions packed onto on-demand leases: what all on demand would have cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.model.units import cost_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDemand:
    """The on-demand workers executions are packed onto."""

    pool: str
    usd_micros_per_hour: int
    slots: int
    startup_ms: int
    idle_ms: int
    min_billing_ms: int


def packed(executions: Sequence[tuple[int, int]], on: OnDemand) -> tuple[int, int]:
    """Micro-dollars and leases of executions (start ms, run ms) on on-demand workers.

    First fit in order of start: an execution takes a free slot of a worker whose last work ended no more than `idle_ms`
    before, else a new worker, launched so that it is ready then. Each worker pays its start-up, its span, its idle tail
    and at least the minimum billing.
    """
    workers: list[list[int]] = []
    spans: list[list[int]] = []
    for start, run in sorted(executions):
        for ends, span in zip(workers, spans, strict=True):
            slot = next((at for at, end in enumerate(ends) if end <= start), None)
            if slot is not None and start - max(ends) <= on.idle_ms:
                ends[slot] = start + run
                span[1] = max(span[1], start + run)
                break
        else:
            workers.append([start + run, *([start] * (on.slots - 1))])
            spans.append([start, start + run])
    total = sum(
        cost_micros(on.usd_micros_per_hour, max(on.min_billing_ms, on.startup_ms + stop - start + on.idle_ms))
        for start, stop in spans
    )
    return total, len(spans)
