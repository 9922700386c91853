"""What commands work on: the ledger, and the chain of it that is meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import ServiceError

if TYPE_CHECKING:
    from agent.ledger.ledger import Ledger
    from agent.settings import Settings


def open_ledger(settings: Settings) -> Ledger:
    """The ledger, at the chain that is meant. Raises ServiceError when there is none, or several may be meant."""
    from agent.ledger.ledger import Ledger

    names = chain_names(settings)
    if len(names) > 1 and (up := _chain_that_is_up(settings)) in names:
        return Ledger(settings.ledger(), up)
    if len(names) > 1:
        raise ServiceError(
            f"the ledger has the records of several schedulers: {', '.join(names)}; say which with ORC_CHAIN=NAME"
        )
    return Ledger(settings.ledger(), names[0])


def chain_names(settings: Settings) -> tuple[str, ...]:
    """The chain that is set, else each that has records.

    Raises:
        ServiceError: there is no ledger, or no record in it, or none of the scheduler that is set.
    """
    from agent.ledger.chains import chains

    where = "ORC_LEDGER_URL" if settings.ledger_url is not None else str(settings.home)
    if not (found := chains(settings.ledger())):
        raise ServiceError(f"there is no ledger in {where} yet; `orc up` begins one")
    full = tuple(chain.name for chain in found if chain.records)
    if not full:
        raise ServiceError(f"the ledger in {where} has no record yet")
    if settings.chain is None and settings.scheduler is None:
        return full
    if (wanted := settings.chain_name()) not in full:
        raise ServiceError(
            f"the ledger in {where} has no record of scheduler {wanted!r}; it has those of {', '.join(full)}"
        )
    return (wanted,)


def _chain_that_is_up(settings: Settings) -> str:
    from agent.services import environment
    from agent.services import state as states

    state = states.read(settings)
    return environment.environment(settings, state)["ORC_CHAIN"] if state is not None and state.alive() else ""


def user() -> str:
    """Who sits here, for the record."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:  # an id without a name, as in many containers
        raise ServiceError("this machine has no name for its user; say who you are with --by NAME") from error
