"""What ORC would have done: the same executions packed twice by the same rule."""

from __future__ import annotations

import pytest

from agent.ledger.ledger import Ledger
from agent.model.codec import encode
from agent.model.leases import Lease
from agent.model.plans import Decision
from agent.model.records import Decided, Ended, Entry, FlowRun, Placed
from agent.report.shadow import shadow_report
from tests.values import HOUR, pool

SPOT = pool("spot", "spot", 0.1, startup_ms=0, idle_ms=0, interruptions_per_1000_hours=500)
SAFE = pool("safe", usd=0.4, startup_ms=60_000, idle_ms=0)


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(f"sqlite:///{tmp_path}/ledger.db", "s")
    made.acquire_lease("me", 0, 0)
    made.append(Entry(kind="start", at_ms=0, mode="shadow", says={"pools": [encode(p).decode() for p in (SPOT, SAFE)]}))
    yield made
    made.close()


def ran(ledger, mode="shadow", verb="bind"):
    """One task of an hour, on a worker of `safe`; ORC would have taken spot."""
    decision = Decision(
        group="g",
        task_class="work",
        name="work",
        root_run="r",
        flow_run="f",
        verb=verb,
        pool="spot" if verb != "refuse" else None,
        reason="",
        options=(),
    )
    lease = Lease(
        id=1, pool="safe", kind="on-demand", worker="safe-0", asked_ms=0, granted_ms=0, cause="observed", price="{}"
    )
    ledger.append(
        Entry(
            kind="round",
            at_ms=1,
            mode=mode,
            runs=[FlowRun(no=1, flow_run="f")],
            decisions=[Decided(id=1, run=1, decision=decision)],
            placements=[Placed(id=1, decision=1, key="k")],
            leases=[lease],
        )
    )
    ledger.append(
        Entry(
            kind="round",
            at_ms=2,
            mode=mode,
            outcomes=[Ended(placement=1, result="done", lease=1, start_ms=1000, run_ms=HOUR)],
        )
    )


def test_the_same_work_is_priced_where_it_ran_and_where_orc_would_have_put_it(ledger):
    ran(ledger)
    made = shadow_report(ledger, 0, 0)
    assert [(s.pool, s.tasks, s.leases) for s in made.today] == [("safe", 1, 1)]
    assert [(s.pool, s.tasks, s.leases, s.interruptions) for s in made.orc] == [("spot", 1, 1, 0.5)]
    assert made.orc_usd_micros == 100_000
    assert made.today_usd_micros == 406_667  # an hour, and a minute to start
    assert made.today[0].startup_ms == 60_000


def test_what_orc_would_have_refused_stays_where_it_was_and_is_counted(ledger):
    ran(ledger, verb="refuse")
    made = shadow_report(ledger, 0, 0)
    assert made.refused == 1
    assert made.orc_usd_micros == made.today_usd_micros


def test_what_was_governed_and_what_is_older_is_left_out(ledger):
    ran(ledger, mode="govern")
    assert shadow_report(ledger, 0, 0) is None
