"""A snapshot taken apart by content, so that a round stores what changed, and put together again, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from agent.model import codec
from agent.model.market import MarketBeliefs
from agent.model.snapshot import Budget, Group, Policy, PoolState, Run, Running, Snapshot, Statistic, Usage


def split(snapshot: Snapshot) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What changes in every round, as JSON, and the rest as named parts."""
    parts = {"policy": codec.encode(snapshot.policy)}
    for state in snapshot.pools:
        live = orjson.loads(codec.encode(state))
        parts[f"pool/{state.pool.name}"] = codec.encode(live.pop("pool"))
        parts[f"live/{state.pool.name}"] = codec.encode(live)
    parts.update({f"group/{group.id}": codec.encode(replace(group, ready=0, since_ms=0)) for group in snapshot.groups})
    parts.update({f"stat/{s.pool}/{s.task_class}": codec.encode(s) for s in snapshot.statistics})
    parts.update({f"budget/{budget.name}": codec.encode(budget) for budget in snapshot.budgets})
    parts.update({f"running/{x.placement}": codec.encode(x) for x in snapshot.running})
    parts.update({f"market/{market.name}": codec.encode(market) for market in snapshot.markets})
    head = {
        "now": snapshot.now_ms,
        "planner": snapshot.planner,
        "rules": snapshot.rules_digest,
        "seed": snapshot.seed,
        "runs": [orjson.loads(codec.encode(run)) for run in snapshot.runs],
        "graphs": snapshot.graphs,
        "wanted": [snapshot.wanted_workers, snapshot.wanted_why],
        "usage": [[x.team, x.root_run, x.slots] for x in snapshot.usage],
        "ready": [[group.id, group.ready, group.since_ms] for group in snapshot.groups],
    }
    return head, parts


def manifest(before: Mapping[str, str], said: Mapping[str, Any] | None) -> Mapping[str, str]:
    """Name → digest of the parts after a record that says this of them (None: nothing), from those before it."""
    if said is None:
        return before
    named = said["set"] if said["whole"] else {**before, **said["set"]}
    return {name: digest for name, digest in named.items() if name not in said["gone"]}


def join(head: Mapping[str, Any], parts: Mapping[str, bytes]) -> Snapshot:
    """The snapshot of a head and its parts, in whatever order these come: what is new is named last."""
    groups = []
    # written before version 10 of the planner: nobody
    wanted, why = head.get("wanted", (0, ""))
    for part_id, ready, since in head["ready"]:
        groups.append(replace(codec.decode(Group, parts[f"group/{part_id}"]), ready=ready, since_ms=since))
    return Snapshot(
        now_ms=head["now"],
        planner=head["planner"],
        rules_digest=head["rules"],
        seed=head["seed"],
        policy=codec.decode(Policy, parts["policy"]),
        pools=tuple(_state(parts, name.removeprefix("live/")) for name in parts if name.startswith("live/")),
        groups=tuple(groups),
        statistics=tuple(codec.decode(Statistic, body) for name, body in parts.items() if name.startswith("stat/")),
        # written before version 2 of the planner: no runs
        runs=tuple(codec.decode(Run, codec.encode(run)) for run in head.get("runs", ())),
        graphs=head.get("graphs", False),
        wanted_workers=wanted,
        wanted_why=why,
        markets=tuple(
            sorted(
                (codec.decode(MarketBeliefs, body) for name, body in parts.items() if name.startswith("market/")),
                key=lambda market: market.name,
            )
        ),
        running=tuple(
            sorted(
                (codec.decode(Running, body) for name, body in parts.items() if name.startswith("running/")),
                key=lambda task: task.placement,
            )
        ),
        usage=tuple(Usage(team=team, root_run=run, slots=slots) for team, run, slots in head.get("usage", ())),
        budgets=tuple(codec.decode(Budget, body) for name, body in parts.items() if name.startswith("budget/")),
    )


def _state(parts: Mapping[str, bytes], name: str) -> PoolState:
    whole = orjson.loads(parts[f"live/{name}"])
    whole["pool"] = orjson.loads(parts[f"pool/{name}"])
    return codec.decode(PoolState, codec.encode(whole))
