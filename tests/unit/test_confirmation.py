"""Delivery of state changes to a server whose queue is in memory: what it drops or loses is sent again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from agent.prefect_events import queue as event_queue
from agent.prefect_events.queue import EventQueue
from harness.wait import until

FIRST = datetime(2026, 1, 1, tzinfo=UTC)


class _Server:
    """Answers when it has queued; records some of its queue whenever it is asked what it has recorded."""

    def __init__(self, room: int = 10**9, speed: int = 10**9) -> None:
        self.room, self.speed = room, speed
        self.queue: list[Any] = []
        self.states: dict[str, tuple[str, datetime]] = {}
        self.dropped, self.most, self.received = 0, 0, 0
        self.away = False
        self._client = self

    def post(self, path: str, json: Any = None, content: bytes = b"", headers: Any = None) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("nobody listens")
        if path == "/events":
            self._take(orjson.loads(content))
            answer: Any = {}
        else:
            self._record()
            wanted = json["task_runs"]["id"]["any_"]
            types = json["task_runs"].get("state", {}).get("type", {}).get("any_")
            found = {run: self.states[run] for run in wanted if run in self.states}
            if path == "/task_runs/count":
                answer = sum(types is None or type in types for type, _ in found.values())
            else:
                answer = [{"id": run, "state": {"timestamp": at.isoformat()}} for run, (_, at) in found.items()]
        return httpx.Response(200, json=answer)

    def _take(self, batch: list[Any]) -> None:
        self.received += len(batch)
        for event in batch:
            if len(self.queue) < self.room:
                self.queue.append(event)
            else:
                self.dropped += 1
        self.most = max(self.most, len(self.queue))

    def _record(self) -> None:
        now, self.queue = self.queue[: self.speed], self.queue[self.speed :]
        for event in now:
            run = event["resource"]["prefect.resource.id"].removeprefix("prefect.task-run.")
            at = datetime.fromisoformat(event["occurred"])
            if run not in self.states or self.states[run][1] < at:
                self.states[run] = event["payload"]["validated_state"]["type"], at

    def killed(self) -> None:
        self.queue.clear()


def _event(run: str, type: str, second: int) -> dict[str, Any]:
    return {
        "id": str(uuid4()),
        "occurred": (FIRST + timedelta(seconds=second)).isoformat(),
        "payload": {"validated_state": {"type": type}},
        "resource": {"prefect.resource.id": f"prefect.task-run.{run}"},
    }


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOOK": 0.005, "LOST": 0.05, "QUIET": 0.1, "PATIENCE": 0.01, "GATHER": 0.001}.items():
        monkeypatch.setattr(event_queue, name, value)


def _tell(queue: EventQueue, runs: list[str], types: tuple[str, ...] = ("PENDING", "RUNNING", "COMPLETED")) -> None:
    for second, type in enumerate(types):
        for run in runs:
            queue.emit(_event(run, type, second))


def _completed(server: _Server, runs: list[str]) -> bool:
    return [server.states.get(run, ("",))[0] for run in runs] == ["COMPLETED"] * len(runs)


def test_no_more_is_sent_ahead_than_a_slow_server_can_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "UNSURE", 200)
    monkeypatch.setattr(event_queue, "MOST", 50)
    server, runs = _Server(room=260, speed=60), [str(uuid4()) for _ in range(500)]
    queue = EventQueue(server)  # type: ignore[arg-type]
    _tell(queue, runs)
    assert queue.settle(20)
    assert (server.dropped, server.received) == (0, 1500)
    assert 150 <= server.most <= 260
    assert _completed(server, runs)
    assert queue.left == 0


def test_what_a_full_server_dropped_is_sent_again() -> None:
    server, runs = _Server(room=100, speed=50), [str(uuid4()) for _ in range(300)]
    queue = EventQueue(server)  # type: ignore[arg-type]
    _tell(queue, runs, ("PENDING",))
    until(lambda: server.dropped > 0)
    server.room = 10**9
    assert queue.settle(20)
    assert len(server.states) == 300


def test_what_a_killed_server_had_only_queued_is_sent_again_when_it_is_back() -> None:
    server, runs = _Server(), [str(uuid4()) for _ in range(20)]
    queue = EventQueue(server)  # type: ignore[arg-type]
    _tell(queue, runs)
    until(lambda: len(server.queue) == 60)
    server.killed()
    server.away = True
    _tell(queue, more := [str(uuid4())])
    until(lambda: queue._away)
    server.away = False
    assert queue.settle(20)
    assert _completed(server, runs + more)


def test_the_last_state_changes_are_looked_after_when_it_is_quiet() -> None:
    server, runs = _Server(), [str(uuid4())]
    queue = EventQueue(server)  # type: ignore[arg-type]
    _tell(queue, runs)
    until(lambda: len(server.queue) == 3)
    server.killed()  # and started again before anything else is told: nobody notices
    until(lambda: _completed(server, runs), 10)
    until(lambda: queue.left == 0)


def test_a_state_that_a_newer_one_replaced_is_not_sent_again() -> None:
    server, run = _Server(), str(uuid4())
    queue = EventQueue(server)  # type: ignore[arg-type]
    # it ran again, as another process told
    server.states[run] = "RUNNING", FIRST + timedelta(hours=1)
    queue.emit(_event(run, "COMPLETED", 1))
    assert queue.settle(10)
    assert server.received == 1


def test_a_server_that_never_records_is_not_asked_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    server = _Server(room=0)
    queue = EventQueue(server)  # type: ignore[arg-type]
    _tell(queue, [str(uuid4())])
    assert queue.settle(30)
    assert server.received == 3 * (1 + event_queue.TRIES)
    assert "do not get recorded" in caplog.text
