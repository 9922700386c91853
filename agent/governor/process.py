"""`python -m agent.governor.process`: the governor as a process of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
from dataclasses import replace
from pathlib import Path

from agent.api.address import Published
from agent.api.app import application
from agent.api.serving import Serving
from agent.cluster import install
from agent.errors import FencedError
from agent.governor.desk import GovernorDesk
from agent.governor.governor import Governor
from agent.governor.rulebook import Rulebook
from agent.ledger.ledger import Ledger
from agent.model.units import duration_ms
from agent.pools import declared, prices
from agent.pools.local import LocalProvider
from agent.processes import bootstrap
from agent.settings import Settings, load

logger = logging.getLogger("orc.governor")


def build(settings: Settings, scheduler: str, environment: dict[str, str], holder: str) -> Governor:
    """A governor from settings. Raises OrcError or rules.schema.RuleError before anything is touched."""
    known = prices.of(settings)
    said = declared.read(settings.pools, known) if settings.pools_declared() else declared.NONE
    rulebook = Rulebook([settings.rule_files()], settings.home / "rules.json")
    # SQLite is on this machine: what cannot be written there could not be spooled here either
    url = settings.ledger()
    ledger = Ledger(url, settings.chain_name(), None if url.startswith("sqlite") else settings.home / "spool.db")
    pools = {pool.name: pool for pool in said.pools}
    traces, mask = said.spot_traces, settings.umask_of_tasks()
    local = LocalProvider(scheduler, settings.home, pools, traces, environment, settings.host, mask)
    return Governor(
        scheduler=scheduler,
        ledger=ledger,
        pools=said.pools,
        budgets=said.budgets,
        rulebook=rulebook,
        policy=replace(settings.planning.policy(), shares=said.shares),
        providers={"local": local},
        mode=settings.mode,
        holder=holder,
        feeds=[prices.watch(known, said.price_names, duration_ms(settings.prices.every))] if said.price_names else (),
    )


async def _main(settings: Settings, scheduler: str) -> int:
    holder = os.environ.get("ORC_INSTANCE") or f"{socket.gethostname()}/{os.getpid()}"
    root = str(Path.cwd())
    environment = {"PYTHONPATH": os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)}
    governor = build(settings, scheduler, environment, holder)
    bootstrap.on_signals(governor.stop)
    token = secrets.token_urlsafe(24)
    api, address = None, Published(settings.home)
    try:
        await install.ensure(scheduler, settings.mode, settings.allow_untested)
        if not await governor.wait_for_lease(address.standby):
            return 0
        # not before: what a second governor would answer is nobody's business
        api = Serving(application(GovernorDesk(governor), token), settings.host, settings.ports.governor)
        api.start()
        address.open(f"http://{settings.host}:{api.port}", token)
        await governor.run()
    except FencedError as error:
        logger.error("%s", error)
        return bootstrap.FENCED
    finally:
        address.withdraw()
        if api is not None:
            await api.stop()
        governor.journal.close()
    return 0


def main() -> None:
    """Entry point; the scheduler's address is the only argument."""
    bootstrap.run("orc.governor", lambda: asyncio.run(_main(load(), sys.argv[1])))


if __name__ == "__main__":
    main()
