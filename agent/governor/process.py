"""`python -m agent.governor.process`: the governor as a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import tornado.httpserver

from agent.errors import FencedError, OrcError
from agent.governor.face import application
from agent.governor.governor import Governor
from agent.governor.rulebook import Rulebook
from agent.ledger.ledger import Ledger
from agent.model.units import duration_ms
from agent.pools import declared, prices
from agent.pools.local import LocalProvider
from agent.scheduler import install
from agent.settings import Settings, load
from rules import schema

logger = logging.getLogger("orc.governor")

#: exit code when another governor has taken over: the supervisor does not start it again at once
FENCED = 3


def build(settings: Settings, scheduler: str, environment: dict[str, str], holder: str) -> Governor:
    """A governor from settings. Raises OrcError or rules.schema.RuleError before anything is touched."""
    known = prices.of(settings)
    said = declared.read(settings.pools, known) if settings.pools_declared() else declared.NONE
    rulebook = Rulebook([settings.rule_files()], settings.home / "rules.json")
    # SQLite is on this machine: what cannot be written there could not be spooled here either
    url = settings.ledger()
    ledger = Ledger(url, settings.chain_name(), None if url.startswith("sqlite") else settings.home / "spool.db")
    pools = {pool.name: pool for pool in said.pools}
    local = LocalProvider(scheduler, settings.home, pools, said.spot_traces, environment)
    return Governor(
        scheduler=scheduler,
        ledger=ledger,
        pools=said.pools,
        budgets=said.budgets,
        rulebook=rulebook,
        policy=replace(settings.policy(), shares=said.shares),
        providers={"local": local},
        mode=settings.mode,
        holder=holder,
        feeds=[prices.watch(known, said.price_names, duration_ms(settings.prices_every))] if said.price_names else (),
    )


async def _main(settings: Settings, scheduler: str) -> int:
    holder = os.environ.get("ORC_INSTANCE") or f"{socket.gethostname()}/{os.getpid()}"
    root = str(Path.cwd())
    environment = {"PYTHONPATH": os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)}
    governor = build(settings, scheduler, environment, holder)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, governor.stop)
    token = secrets.token_urlsafe(24)
    server = tornado.httpserver.HTTPServer(application(governor, token))
    server.listen(settings.governor_port, address=settings.host)
    port = next(iter(server._sockets.values())).getsockname()[1]
    said = settings.home / "governor.json"
    said.touch(mode=0o600)
    said.write_text(json.dumps({"url": f"http://{settings.host}:{port}", "token": token, "pid": os.getpid()}))
    try:
        await install.ensure(scheduler, settings.mode, settings.allow_untested)
        await governor.run()
    except FencedError as error:
        logger.error("%s", error)
        return FENCED
    finally:
        server.stop()
        governor.ledger.close()
    return 0


def main() -> None:
    """Entry point; the scheduler's address is the only argument."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        sys.exit(asyncio.run(_main(load(), sys.argv[1])))
    except (OrcError, schema.RuleError) as error:
        logger.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
