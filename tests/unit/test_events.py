"""What the extension tells, on the wire and back."""

from __future__ import annotations

import typing

import msgpack
import pytest

from agent.errors import SchedulerError
from agent.model import events
from agent.model.events import Event, TaskEnded, TaskReady, WorkerJoined, from_wire, to_wire
from agent.model.outcomes import Result

SOME = (
    events.SpecAdded(0, {"prefix": "work", "says": {}, "resources": {}}),
    events.GraphSubmitted((("a", 0, ()), (("b", 1), 0, ("a",)))),
    TaskReady("a", 0, 5, 1000, ("b",), 2, -7),
    events.TaskPlacedByDask("a", 0, 5, 1000, "tcp://1"),
    TaskEnded("a", Result.OUT_OF_MEMORY, "tcp://1", 1, 2, 3, (("reads", "table", "x"),), (5, 6)),
    events.TaskCheckpointed("a", 5, 6),
    events.TaskCancelled(("a", 1)),
    events.TaskSeceded("a"),
    events.TaskPassedThrough("a", "an actor"),
    events.Restarted(3),
    WorkerJoined({"address": "tcp://1", "name": "spot-0"}),
    events.WorkerLeft("tcp://1", "its connection to the scheduler broke"),
    events.WorkerPaused("tcp://1", True),
    events.WorkerNoticed("tcp://1", 120_000, "spot"),
    events.WorkerBusy("tcp://1", 2, 1),
    events.WorkersWanted(3, "a client waits for workers"),
)


def test_every_kind_has_an_example_here_and_a_word_of_its_own():
    assert {type(event) for event in SOME} == set(typing.get_args(Event)) == set(events.KINDS)
    assert len(set(events.KINDS.values())) == len(events.KINDS)


@pytest.mark.parametrize("event", SOME, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_the_wire_as_it_was(event):
    sent = msgpack.loads(msgpack.dumps(to_wire(event)), use_list=False)  # as Dask sends it
    back = from_wire(sent)
    assert (type(back), back) == (type(event), event)


def test_a_result_that_came_over_the_wire_is_a_value():
    assert isinstance(from_wire(("ended", "a", "lost")), TaskEnded)
    assert from_wire(("ended", "a", "lost")).result is Result.LOST


@pytest.mark.parametrize(
    "told", [("unheard of", 1), ("ready",), ("ready", "a"), ("cancelled", "a", 1), ("ended", "a", "eaten")]
)
def test_an_event_of_another_version_is_refused_with_its_kind(told):
    with pytest.raises(SchedulerError, match=f"tells of '{told[0]}' .* start the scheduler again"):
        from_wire(told)
