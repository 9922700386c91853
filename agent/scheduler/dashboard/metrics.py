"""What the extension counts, beside the metrics that Dask itself tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.scheduler.status import SchedulerStatus


class _Collector:
    """Read when Prometheus asks Dask for its metrics."""

    registered: _Collector | None = None

    def __init__(self, status: SchedulerStatus) -> None:
        self.status = status

    def collect(self) -> Iterator[Any]:
        """See `prometheus_client.registry.Collector`."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        host, binding = self.status.host, self.status.binding
        yield CounterMetricFamily("orc_scheduler_bound", "Tasks bound to workers", value=binding.bound)
        yield CounterMetricFamily(
            "orc_scheduler_withdrawals", "Tasks asked back from workers", value=binding.withdrawals
        )
        yield GaugeMetricFamily("orc_scheduler_tasks", "Tasks held or bound", value=len(host.tasks))
        yield GaugeMetricFamily(
            "orc_scheduler_inner_tasks", "Tasks that governed tasks submitted", value=len(self.status.nested.tasks)
        )
        yield GaugeMetricFamily(
            "orc_scheduler_untold_deltas", "Deltas no governor has on record", value=len(host.log.deltas)
        )
        longest = GaugeMetricFamily(
            "orc_scheduler_longest_hold_seconds", "Longest stretch of the scheduler's loop by ORC", labels=("doing",)
        )
        for what, ms in sorted(host.longest_ms.items()):
            longest.add_metric([what], ms / 1000)
        yield longest
        waits = sorted(binding.waits_ms)
        if waits:
            ready = GaugeMetricFamily(
                "orc_scheduler_ready_to_bound_seconds", "From ready to bound, the newest tasks", labels=("quantile",)
            )
            ready.add_metric(["0.5"], waits[len(waits) // 2] / 1000)
            ready.add_metric(["0.99"], waits[int(len(waits) * 0.99)] / 1000)
            yield ready


def register(status: SchedulerStatus) -> None:
    """Have them told, where Dask has metrics."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:  # Dask itself has none then
        return
    if _Collector.registered is None:
        _Collector.registered = _Collector(status)
        REGISTRY.register(_Collector.registered)
    # several schedulers may follow each other in one process; the newest is told of, as Dask does it
    _Collector.registered.status = status
