"""A test session: what it starts carries its mark and is ended with it, and workers of pytest-xdist share no server.

With `-n 2` each server that is started once for a session must live in one worker only. So tests are put into groups
by the servers they use, and each group goes to one worker; the longest groups go first, so that the many short ones
fill what is left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from harness import reaper
from harness.processes import MARK, carrying, command, kill
from harness.wait import within

#: fixture → the group of all tests that use it
GROUPS = {
    "orc": "orc",
    "graph_at": "graphs",
    "embedded": "graphs",
    "neo4j": "graphs",
    "dask_address": "runner",
    "cluster": "cluster",
}
#: groups in the order in which they are given out, by what they take; the rest follows as it was collected
LONGEST = ("orc", "their_cluster", "graphs", "runner")
_HOME, _GROUPS, _LEFT = pytest.StashKey[str](), pytest.StashKey[str](), pytest.StashKey[list[str]]()
_REAPER = pytest.StashKey[subprocess.Popen[bytes]]()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


# ---------------------------------------------------------------------- what is started is ended
def pytest_configure(config: pytest.Config) -> None:
    """A mark for all that this session starts, and a Prefect home of each process's own."""
    if not _is_worker(config):
        os.environ[MARK] = mark = uuid.uuid4().hex
        config.stash[_REAPER] = reaper.start(os.getpid(), mark)
        config.stash[_GROUPS] = tempfile.mkdtemp(prefix="groups-")
    config.stash[_HOME] = os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """What was made for the session goes with it."""
    if (waits := config.stash.get(_REAPER, None)) is not None and not carrying(MARK, os.environ[MARK]):
        # nothing is left to it; else it goes on when this process is gone
        waits.kill()
        waits.wait()
    for folder in (config.stash.get(_HOME, ""), config.stash.get(_GROUPS, "")):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """When all workers have ended: what still runs was left by a test. It is ended, and fails a session that passed."""
    yield
    if _is_worker(session.config):
        return
    mark = os.environ[MARK]
    within(lambda: not carrying(MARK, mark), 5, 0.5)
    left = carrying(MARK, mark)
    session.config.stash[_LEFT] = [f"{process.pid}: {command(process)}" for process in left]
    kill(left)
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was left."""
    if left := config.stash.get(_LEFT, []):
        terminalreporter.section("processes that tests left running; they were ended")
        for line in left:
            terminalreporter.write_line(line)


# ---------------------------------------------------------------------- who runs what
def group_of(path: str, name: str, fixtures: Iterable[str], real: bool) -> str:
    """The group of a test: by its server, else its module; a test that starts an ORC of its own is one by itself."""
    module = path.removesuffix(".py").rpartition("test_")[2]
    if path.startswith("tests/integration/test_enrich"):
        return "graphs"
    for fixture in fixtures:
        if fixture in GROUPS:
            return GROUPS[fixture]
    if real and path.startswith("tests/e2e/") and module != "their_cluster":
        return f"{module}-{name}"
    return module


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: the longest groups first, and who is in which, for the scheduler."""
    if not _is_worker(config):
        return
    groups: dict[str, str] = {}
    for item in items:
        path = item.path.relative_to(config.rootpath).as_posix()
        fixtures = getattr(item, "fixturenames", ())
        groups[item.nodeid] = group_of(path, item.name, fixtures, item.get_closest_marker("real") is not None)
    order: dict[str, int] = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.setdefault(groups[item.nodeid], len(order)))
    worker: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
    Path(worker["groups"], worker["workerid"]).write_text(json.dumps(groups))


class ByServer(LoadScopeScheduling):
    """A group at a time to each worker, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Any, folder: Path) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)
        self._folder = folder
        self._groups: dict[str, str] = {}

    def _split_scope(self, nodeid: str) -> str:
        if nodeid not in self._groups:
            # every worker has collected the same, and has written it before it said so
            self._groups = json.loads(next(self._folder.iterdir()).read_text())
        return self._groups[nodeid]

    def _reschedule(self, node: Any) -> None:
        """Give out groups until the worker can go on: it runs a test only when it knows of a next one, or of none."""
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

    def remove_node(self, node: Any) -> str | None:
        """What a worker ran when it crashed has failed: it is not run again, to crash the next one.

        Groups that were done are not given out again either: a worker would wait for their tests for ever.
        """
        assigned = self.assigned_work[node]
        crashed = next((nodeid for unit in assigned.values() for nodeid, done in unit.items() if not done), None)
        for group, unit in list(assigned.items()):
            if crashed in unit:
                unit[crashed] = True
            if all(unit.values()):
                del assigned[group]
        super().remove_node(node)
        return crashed


def pytest_configure_node(node: Any) -> None:
    """In the controller, for each worker: where it says who is in which group."""
    node.workerinput["groups"] = node.config.stash[_GROUPS]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    """Ours, whatever `--dist` says: servers cannot be shared otherwise."""
    return ByServer(config, log, Path(config.stash[_GROUPS]))
