"""A test session ends, and leaves nothing running, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from harness.processes import ROOT
from harness.wait import until

pytestmark = pytest.mark.real

LEAVES = """
import subprocess, sys, threading

def start():
    # as a server does: out of reach of the terminal and of its parent's end
    code = "import time; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    open("left", "w").write(str(process.pid))

def test_passes_and_leaves_a_process():
    start()

def test_leaves_a_process_and_goes_on():
    start()
    threading.Event().wait()

def test_hangs():
    threading.Event().wait()
"""
PASSES = """
def test_is_fine():
    pass
"""


@pytest.fixture
def session(tmp_path):
    """Starts pytest on the file above, with our plugin alone, in a folder of its own."""
    (tmp_path / "test_leaves.py").write_text(LEAVES)
    for name in ("before", "later", "last"):
        (tmp_path / f"test_{name}.py").write_text(PASSES)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntimeout_method = thread\n")
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-q", "-p", "tests.session", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def left(folder):
    """The process that the test has started; None before it has."""
    pid = (folder / "left").read_text() if (folder / "left").exists() else ""
    return psutil.Process(int(pid)) if pid else None


def ended(process):
    """It is gone, or nobody has waited for it."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_process_that_a_test_leaves_is_ended_and_fails_the_session(session, tmp_path, workers):
    process = session("-n", workers, "-k", "passes")
    until(lambda: left(tmp_path), 60)
    seen = left(tmp_path)
    said, _ = process.communicate(timeout=60)
    assert "1 passed" in said
    assert f"{seen.pid}: " in said
    assert process.returncode == 1
    until(lambda: ended(seen))


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["by Ctrl-C", "by SIGKILL"])
def test_a_session_that_is_ended_leaves_nothing(session, tmp_path, workers, number):
    process = session("-n", workers, "-k", "goes_on")
    until(lambda: left(tmp_path), 60)
    seen, family = left(tmp_path), psutil.Process(process.pid).children(recursive=True)
    # a terminal tells the whole group, a supervisor the process alone
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    process.wait(60)
    until(lambda: ended(seen) and all(ended(each) for each in family), 60)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_test_that_hangs_fails_and_the_session_goes_on_and_ends(session, workers):
    began = time.monotonic()
    files = [f"test_{name}.py" for name in ("before", "leaves", "later", "last")]
    process = session("-n", workers, "-k", "hangs or fine", "--timeout", "3", *files)
    said, _ = process.communicate(timeout=90)
    assert "1 failed, 3 passed" in said
    assert "test_leaves.py::test_hangs" in said
    assert time.monotonic() - began < 60
