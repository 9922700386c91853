"""`orc pools`: the declared pools and budgets, checked."""

from __future__ import annotations

from agent.cli.terminal import table


def pools() -> None:
    """The declared pools, checked."""
    import time

    from agent.model.units import show_ms, show_usd
    from agent.pools import declared, prices
    from agent.settings import load

    settings, now_ms = load(), round(time.time() * 1000)
    found = declared.read(settings.pools, prices.of(settings))
    rows = [
        [
            pool.name,
            pool.shown_kind,
            pool.shown_size,
            pool.slots,
            f"{show_usd(pool.price_at(now_ms))}/h",
            f"{pool.min_workers} to {pool.max_workers}",
            show_ms(pool.startup_ms),
            pool.provider or "observed",
            ", ".join(f"{name}={value}" for name, value in pool.labels),
        ]
        for pool in found.pools
    ]
    columns = ["pool", "kind", "worker", "slots", "price", "workers", "start-up", "provider", "labels"]
    table(f"pools of {settings.pools}", columns, rows, {"slots", "price"})
    if found.budgets:
        budgets = [
            [b.name, show_usd(b.limit_usd_micros), show_ms(b.max_runtime_ms) if b.max_runtime_ms else "asked for"]
            for b in found.budgets
        ]
        table("budgets", ["budget", "limit", "max_runtime"], budgets)
