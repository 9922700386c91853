"""Starting and ending a local ORC from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import psutil

from agent.errors import ServiceError
from agent.pools import declared, prices
from agent.processes import family
from agent.processes.lock import Lock
from agent.services import home, ports
from agent.services import state as states
from agent.services.state import State
from agent.settings import Settings
from rules import schema


def up(settings: Settings, say: Callable[[str], None], theirs: Mapping[str, str] | None = None) -> State:
    """Start everything and wait until it is ready; what a crash left is ended first.

    Args:
        theirs: addresses of a `scheduler` or a `prefect` server that run already: they are used, and not started here.

    Raises:
        ServiceError, PoolError, RuleError: nothing was started, or it was ended again.
    """
    old = states.read(settings)
    if old is not None and old.alive():
        if old.ready:
            raise ServiceError(
                f"ORC is already up in {settings.home} (process {old.pid}); `orc status` shows it, `orc down` ends it"
            )
        raise ServiceError(f"ORC is just starting in {settings.home} (process {old.pid}: {old.doing})")
    # refused before anything starts
    if settings.pools_declared():
        declared.read(settings.pools, prices.of(settings))
    schema.load([settings.rule_files()])
    home.prepare(settings.home)
    lock = home.lock(settings.home)
    try:
        return _up(settings, say, dict(theirs or {}), lock)
    finally:
        lock.release()


def _up(settings: Settings, say: Callable[[str], None], theirs: dict[str, str], lock: Lock) -> State:
    if by_file := settings.by_file():
        say(by_file)
    old = states.read(settings)
    if old is not None and (left := family.family(old.instance)):
        say(f"ending {len(left)} processes that a crash left behind")
        family.end_all(left)
    ports.choose(settings, {})
    log = settings.home / "logs" / "supervisor.log"
    log.touch(mode=0o600)
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "agent.services.supervisor", json.dumps(theirs), str(lock.descriptor)],
            pass_fds=[lock.descriptor],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    shown = ""
    while True:
        state = states.read(settings)
        if state is not None and state.pid == process.pid:
            if state.doing != shown:
                shown = state.doing
                say(shown)
            if state.ready:
                return state
            if state.failed:
                process.wait(20)
                raise ServiceError(state.failed)
        if process.poll() is not None:
            raise ServiceError(f"ORC did not start: {_last(log)} (see {log})")
        time.sleep(0.1)


def _last(log: os.PathLike[str]) -> str:
    with open(log, encoding="utf-8", errors="replace") as file:
        lines = file.read().strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def down(settings: Settings, say: Callable[[str], None]) -> bool:
    """End everything, also what a crash left behind. False when nothing ran."""
    state = states.read(settings)
    if state is None:
        if home.is_held(settings.home):
            raise ServiceError(f"ORC is just starting in {settings.home}; try again in a moment")
        return False
    if state.alive():
        say(f"ending process {state.pid} and its services")
        os.kill(state.pid, signal.SIGTERM)
        try:
            psutil.Process(state.pid).wait(45)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired:
            say("it takes too long; ending it by force")
            os.kill(state.pid, signal.SIGKILL)
    family.end_all(family.family(state.instance))
    states.file_of(settings).unlink(missing_ok=True)
    return True
