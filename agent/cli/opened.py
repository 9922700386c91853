"""What commands work on."""

from __future__ import annotations

from agent.errors import ServiceError
from agent.ledger.ledger import Ledger
from agent.settings import Settings


def ledger(settings: Settings) -> Ledger:
    """The ledger of the settings. Raises ServiceError when nothing has begun one."""
    if settings.ledger_url is None and not (settings.home / "ledger.db").exists():
        raise ServiceError(f"there is no ledger in {settings.home} yet; `orc up` begins one")
    return Ledger(settings.ledger(), settings.chain_name())
