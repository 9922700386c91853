"""How a process of ORC begins and ends: its log, its signals, its last word."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from agent.errors import OrcError
from rules.errors import RuleError

#: exit code of a governor that another one has taken over from: it is not started again
FENCED = 3


def run(name: str, main: Callable[[], int | None]) -> NoReturn:
    """Run a process's main function and exit with what it answers; with 1 and a line in the log where ORC raised.

    Args:
        name: of its logger.
        main: answers the exit code; None for 0.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        sys.exit(main() or 0)
    except (OrcError, RuleError) as error:
        logging.getLogger(name).error("%s", error)
        sys.exit(1)


def on_signals(stop: Callable[[], None], signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT)) -> None:
    """Call `stop` when this process is told to end: in its event loop, where one runs, else between instructions."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        for number in signals:
            signal.signal(number, lambda *_: stop())
        return
    for number in signals:
        loop.add_signal_handler(number, stop)
