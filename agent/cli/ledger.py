"""`orc ledger`: is the record whole?"""

from __future__ import annotations

from typing import Annotated

import typer

from agent.cli.terminal import say

ledger_app = typer.Typer(help="The ledger.", no_args_is_help=True)


@ledger_app.command("verify")
def verify(
    replay: Annotated[bool, typer.Option("--replay", help="also make every plan again from its snapshot")] = False,
) -> None:
    """Find changed, missing, reordered or unreadable records of every scheduler, or of ORC_CHAIN.

    Exit code 1 when there are some.
    """
    from agent.cli.context import chain_names
    from agent.ledger import verify as ledgers
    from agent.ledger.ledger import Ledger
    from agent.model.addresses import without_secrets
    from agent.settings import load

    settings, wrong = load(), 0
    say(f"ledger {without_secrets(settings.ledger())}", *([by_file] if (by_file := settings.by_file()) else []))
    for name in chain_names(settings):
        ledger, done, faults = Ledger(settings.ledger(), name), ledgers.Report(), 0
        for fault in ledgers.verify(ledger, done, replay):
            faults += 1
            say(f"{name}: record {fault.seq}: {fault.what}", style="red")
        ledger.close()
        wrong += faults
        parts = [f"{name}: {done.records} records"]
        parts += [f"{done.replayed} plans made again"] if replay else []
        more = f"; {done.other_version} plans are of another planner's version" if done.other_version else ""
        if done.not_replayed:
            more += f"; {done.not_replayed} plans stand behind a record that cannot be read, and were not made again"
        say(f"{', '.join(parts)}, {faults} faults{more}")
    if wrong:
        raise typer.Exit(1)
