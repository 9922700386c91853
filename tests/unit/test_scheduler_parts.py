"""Parts of the extension that need no scheduler: numbered deltas, the fence, the sayings, what is sent elsewhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from types import SimpleNamespace

from agent.cluster import install
from agent.model.events import TaskCancelled
from agent.scheduler.delta_log import DeltaLog
from agent.scheduler.fence import Fence
from agent.scheduler.spec_registry import SpecRegistry


def log_of(count):
    log = DeltaLog()
    for number in range(count):
        log.tell(TaskCancelled(number))
    return log


def test_deltas_stay_until_they_are_on_record():
    log = log_of(5)
    assert log.after(0, 3) == {"ack": 3, "deltas": [("cancelled", n) for n in range(3)]}
    assert log.after(0, 3)["ack"] == 3  # the answer was lost: the same again
    assert log.after(3, 10) == {"ack": 5, "deltas": [("cancelled", 3), ("cancelled", 4)]}
    assert log.after(5, 10) == {"ack": 5, "deltas": []}


def test_a_governor_that_has_missed_deltas_or_comes_from_another_scheduler_is_told_of_the_gap():
    log = log_of(5)
    log.after(4, 10)
    assert log.after(2, 10) == {"gap": True}
    assert log.after(6, 10) == {"gap": True}


def test_a_governor_that_waits_is_woken_by_a_delta():
    async def follow():
        log = log_of(1)
        waiting = asyncio.ensure_future(log.news(1, 60.0, 0.0))
        await asyncio.sleep(0)
        log.tell(TaskCancelled(1))
        await asyncio.wait_for(waiting, 10)
        await log.news(0, 60.0, 60.0)  # what is there already is not waited for
        return log.after(1, 10)

    assert asyncio.run(follow()) == {"ack": 2, "deltas": [("cancelled", 1)]}


def test_the_newest_governor_alone_is_obeyed():
    fence = Fence()
    assert fence.refusal(3) is None
    assert fence.refusal(2) == {"fenced": 3}
    assert fence.refusal(3) is None
    assert not fence.overtaken(3)
    assert fence.overtaken(2)


def test_each_distinct_saying_is_told_once():
    told = []
    specs = SpecRegistry(told.append)
    ts = SimpleNamespace(prefix=SimpleNamespace(name="work"))
    says = {"needs": {}, "run": {"flow_run": "f", "deadline_ms": 5}, "name": "Work"}
    assert [specs.number(ts, each, None) for each in (says, dict(says), None)] == [0, 0, 1]
    assert specs.number(ts, None, {"GPU": 1.0}) == 2
    assert [event.number for event in told] == [0, 1, 2]
    assert (specs.flow_run(0), specs.name(0), specs.has_deadline(0)) == ("f", "Work", True)
    assert (specs.flow_run(1), specs.name(1), specs.has_deadline(1)) == ("", "work", False)


def test_the_dashboards_page_travels_with_the_code(tmp_path):
    path = install.bundle(tmp_path)
    code = (
        "from importlib import resources, import_module\n"
        "package = import_module('agent.scheduler.dashboard')\n"
        "print(package.__file__, resources.files(package).joinpath('page.html').read_text()[:15])"
    )
    found = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert found == [str(path / "agent/scheduler/dashboard/__init__.py"), "<!doctype", "html>"]
