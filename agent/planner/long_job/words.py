"""Why a long job goes where it goes, or waits, in a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.units import MICROS, show_ms, show_usd
from agent.planner.long_job.values import CostsToGo


def why(
    pool: str, costs: CostsToGo, zones: Sequence[str], safe_of: Sequence[str], *, waits: bool, slack_ms: float
) -> str:
    """The sentence: what the rest costs this way, and the others.

    Args:
        pool: where it goes, or what it waits for.
        zones: spot pools, by position. safe_of: the on-demand pool of each.
    """
    spot = {zones[zone]: usd for zone, usd in costs.spot_usd.items()}
    dear, safe = min((usd, safe_of[zone]) for zone, usd in costs.on_demand_usd.items())
    if waits:
        figures = f"the rest costs {show_usd(round(costs.stay_usd * MICROS))} so, {_usd(dear)} on {safe} now"
        head = f"long job: waits for {pool}"
    elif pool in spot:
        others = sorted((usd, name) for name, usd in spot.items() if name != pool)
        beside = f"{_usd(others[0][0])} on {others[0][1]}, " if others else ""
        head, figures = (
            f"long job: {pool}",
            f"the rest costs {_usd(spot[pool])} there, {beside}{_usd(dear)} on {safe}",
        )
    else:
        head = f"long job: {pool}"
        figures = f"the rest costs {_usd(dear)} on demand, {_usd(costs.stay_usd)} to let things be"
    left = f"the deadline leaves {show_ms(round(slack_ms))}" if slack_ms > 0 else "the deadline leaves nothing"
    return f"{head}: {figures}; {left}"


def _usd(usd: float) -> str:
    return show_usd(round(usd * MICROS))
