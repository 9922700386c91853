"""What the governor counts, for Prometheus: decisions, outcomes, holds, leases, the error of its estimates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from agent.state.snapshot import pools
from agent.state.tally import RATIOS

if TYPE_CHECKING:
    from agent.governor.governor import Governor


class Collector:
    """Reads a governor when Prometheus asks."""

    def __init__(self, governor: Governor) -> None:
        self.governor = governor

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        """See `prometheus_client.registry.Collector`."""
        g, now = self.governor, self.governor.clock()
        tally = g.state.tally
        yield _counter("orc_decisions", "Decisions that said something new", ("verb", "pool"), tally.decisions)
        yield _counter(
            "orc_placements", "Tasks sent to a pool", ("pool",), {(k,): v for k, v in tally.placements.items()}
        )
        yield _counter("orc_outcomes", "What became of placements", ("pool", "result"), tally.outcomes)
        yield _counter(
            "orc_moves", "Tasks bound again after a loss", ("pool",), {(k,): v for k, v in tally.moves.items()}
        )
        usd = {key: micros / 1e6 for key, micros in tally.lease_usd_micros.items()}
        yield _counter("orc_lease_dollars", "Cost of leases that ended", ("pool", "cause"), usd)
        held, oldest = Counter[str](), dict[str, int]()
        for hold in g.holds.values():
            held[hold.reason] += hold.count
            oldest[hold.reason] = max(oldest.get(hold.reason, 0), now - hold.since_ms)
        yield _gauge("orc_held_tasks", "Tasks that wait, by reason", ("reason",), {(k,): v for k, v in held.items()})
        yield _gauge(
            "orc_held_oldest_seconds",
            "Age of the oldest hold, by reason",
            ("reason",),
            {(k,): v / 1000 for k, v in oldest.items()},
        )
        yield _gauge("orc_running_tasks", "Tasks bound to workers", (), {(): len(g.state.bound)})
        states = pools(g.state, now)
        workers = {(s.pool.name, "live"): len(s.workers) for s in states} | {
            (s.pool.name, "starting"): len(s.starting) for s in states
        }
        yield _gauge("orc_workers", "Workers of a pool", ("pool", "state"), workers)
        yield _gauge(
            "orc_price_dollars_per_hour",
            "Price of one worker now",
            ("pool",),
            {(s.pool.name,): s.usd_micros_per_hour / 1e6 for s in states},
        )
        yield _gauge(
            "orc_open_lease_dollars",
            "Cost so far of the leases that are open",
            (),
            {(): g.state.fleet.leases.open_usd_micros(now) / 1e6},
        )
        yield _gauge("orc_spooled_records", "Records that wait for the ledger's database", (), {(): g.ledger.spooled})
        yield _gauge("orc_epoch", "Number of this governor", (), {(): g.epoch})
        yield _times("orc_plan_seconds", "Time of the last plans", g.plan_ms)
        yield _times("orc_commit_seconds", "Time of the last commits", g.journal.commit_ms)
        family = HistogramMetricFamily("orc_runtime_ratio", "Actual runtime over the expected one")
        running, buckets = 0, []
        for at, bound in enumerate(RATIOS):
            running += tally.ratios[at]
            buckets.append(("+Inf" if bound == float("inf") else str(bound), running))
        family.add_metric((), buckets, tally.ratio_sum)
        yield family


def page(governor: Governor) -> bytes:
    """Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(governor))
    return bytes(generate_latest(registry))


def _counter(name: str, text: str, labels: tuple[str, ...], values: object) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    _add(family, values)
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: object) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=labels)
    _add(family, values)
    return family


def _add(family: CounterMetricFamily | GaugeMetricFamily, values: object) -> None:
    assert isinstance(values, dict)
    for key, value in sorted(values.items()):
        family.add_metric([str(part) for part in key], value)


def _times(name: str, text: str, ms: object) -> GaugeMetricFamily:
    found = sorted(ms)  # type: ignore[call-overload]
    family = GaugeMetricFamily(name, text, labels=("quantile",))
    if found:
        family.add_metric(["0.5"], found[len(found) // 2] / 1000)
        family.add_metric(["0.99"], found[int(len(found) * 0.99)] / 1000)
    return family
