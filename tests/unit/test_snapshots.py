"""A snapshot that is taken apart for the ledger and put together again."""

from __future__ import annotations

from dataclasses import fields

import orjson

from agent.ledger.snapshots import join, split
from agent.model.market import MarketBeliefs, ZoneBelief
from agent.model.snapshot import Budget, Policy, Run, Running, Snapshot, Statistic, Usage
from tests.values import group, pool, snapshot, state

ZONE = ZoneBelief(
    name="spot", losses=25.1, up_h=110 / 3, returns=24.0, down_h=19.2, away_h=0.1, up=(0.1 + 0.2, 1 / 7), now=False
)


def test_nothing_of_it_is_lost():
    whole = snapshot(
        state(pool(), 1), state(pool("spot", "spot", 0.02)), groups=(group(ready=3, since_ms=7),), now_ms=11,
        rules_digest="rules", seed=3, policy=Policy(max_losses=7), budgets=(Budget(name="b", limit_usd_micros=5),),
        statistics=(Statistic(task_class="work", pool="", n=3, log_mean=1 / 3, log_m2=0.1),),
        runs=(Run(root_run="root", tasks=2),), usage=(Usage(team="a", root_run="r", slots=2),),
        running=(Running(placement=4, group=group("late"), pool="spot", ran_ms=5, expected_ms=6, leaves=True),),
        wanted_workers=2, wanted_why="somebody", graphs=True,
        markets=(MarketBeliefs(name="m", tick_h=1 / 12, weight=(0.3, 0.7), zones=(ZONE,), speed=240, ends_ms=9),),
    )  # fmt: skip
    plain = Snapshot(now_ms=0, planner="", rules_digest="", seed=0, policy=Policy())
    same = [each.name for each in fields(Snapshot) if getattr(whole, each.name) == getattr(plain, each.name)]
    assert same == [], "the test must say something of every field"
    head, parts = split(whole)
    assert join(orjson.loads(orjson.dumps(head)), parts) == whole
