"""The embedded graph's process: how it ends, and what it finds when it comes back."""

from __future__ import annotations

import signal

import pytest

from agent.graph.bolt import Graph
from harness import servers

pytestmark = pytest.mark.real


def test_it_ends_when_asked_and_keeps_what_it_has_when_killed_and_when_its_password_is_lost(processes, tmp_path):
    home = tmp_path / "home"
    at = servers.embedded(processes, home)
    process = processes.started[-1]
    with Graph(at) as graph:
        graph.run("CREATE (n:Kept {name: 'one'})")
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    (home / "graph.json").unlink()
    again = servers.embedded(processes, home)
    process = processes.started[-1]
    assert again.password != at.password
    with Graph(again) as graph:
        assert graph.read("MATCH (n:Kept) RETURN n.name AS name") == [{"name": "one"}]
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0  # by itself: nobody has to kill it
