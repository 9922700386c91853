"""What one rule said of one placement group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agent.model.pools import Pool

RuleVerb = Literal["forbid", "require", "prefer", "escalate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A rule's word: a verb and the pools it is about."""

    rule: str
    verb: RuleVerb
    reason: str
    #: (field, values): kind, market, pool, gpu_model, or label.NAME; a pool is selected when every field is among its
    #: values
    select: tuple[tuple[str, tuple[str, ...]], ...] = ()
    #: escalate only when the group's expected dollars are above, micro-dollars
    above_usd_micros: int | None = None

    def selects(self, pool: Pool) -> bool:
        """Whether the verdict is about this pool; without fields it is about all."""
        for field, values in self.select:  # noqa: SIM110 - a generator costs three times as much, for every pool and rule
            if (pool.name if field == "pool" else _field(pool, field)) not in values:
                return False
        return True


def _field(pool: Pool, field: str) -> str:
    if field == "kind":
        return pool.kind
    if field == "market":
        return pool.market
    if field == "pool":
        return pool.name
    if field == "gpu_model":
        return pool.gpu_model or ""
    return dict(pool.labels).get(field.removeprefix("label."), "")
