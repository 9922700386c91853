"""A worker's process that something holds when the worker has closed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from agent.errors import SettingError
from agent.worker import settings

HELD = """
import threading
from agent.worker import preload
preload.LAST = 0.5
preload.dask_teardown(None)
threading.Thread(target=threading.Event().wait).start()
"""


def test_a_closed_worker_of_a_pool_ends_though_a_body_left_a_thread():
    env = {**os.environ, "ORC_WORKER_POOL": "spot"}
    assert subprocess.run([sys.executable, "-c", HELD], env=env, timeout=60, check=False).returncode == 0


def test_a_worker_leaves_word_of_its_end_for_its_provider(tmp_path):
    file = tmp_path / "spot-0.ended"
    env = {**os.environ, "ORC_WORKER_ENDED": str(file)}
    code = "from agent.worker import preload; preload.preemption.ready = print; preload.dask_setup(None)"
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=60, check=False).returncode == 0
    assert file.exists()


def test_a_worker_is_told_what_is_wrong_with_its_settings(monkeypatch):
    monkeypatch.setenv("ORC_GRACE", "soon")
    with pytest.raises(SettingError, match="ORC_GRACE='soon'"):
        settings.load()
