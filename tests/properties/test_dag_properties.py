"""A graph kept up to date event by event is the graph computed anew."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.planner.dag import TaskGraph


def story(seed: int) -> TaskGraph:
    """A graph that was grown, weighed, ended and lost in a random order."""
    r = Random(seed)
    graph = TaskGraph(r.choice([0, 7]))
    n = 0
    for _ in range(r.randint(1, 40)):
        what = r.random()
        if what < 0.5 or not n:
            batch = []
            for _ in range(r.randint(1, 5)):
                batch.append(
                    (n, r.randint(0, 20), r.sample(range(n), min(n, r.choice([0, 1, 1, 2, 5]))), r.randint(0, 9))
                )
                n += 1
            graph.extend(batch)
        elif what < 0.7:
            graph.weigh(r.sample(range(n), min(n, r.randint(1, 4))), r.randint(0, 20))
        elif what < 0.9:
            graph.end(r.randrange(n))
        else:
            graph.again(r.randrange(n))
    return graph


@given(st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
def test_kept_up_to_date_it_is_what_a_full_pass_makes(seed):
    graph = story(seed)
    assert graph.figures() == graph.recomputed().figures()


def test_children_behind_the_first_wait_for_a_worker_to_start():
    graph = TaskGraph(startup_ms=10)
    graph.extend([("a", 5, (), 0), ("b", 20, ("a",), 0), ("c", 18, ("a",), 0)])
    assert graph.tail_ms("a") == 28
    assert graph.path_ms == 33


def test_what_follows_a_task_is_learned_until_its_children_are_known():
    graph = TaskGraph()
    graph.add("a", 5, (), beyond_ms=100)
    assert graph.path_ms == 105
    graph.add("b", 7, ("a",))
    assert graph.path_ms == 12


def test_an_end_makes_children_ready_once_all_their_parents_have_ended():
    graph = TaskGraph()
    graph.extend([("a", 5, (), 0), ("b", 5, (), 0), ("c", 1, ("a", "b"), 0)])
    assert graph.end("a") == []
    assert graph.end("a") == []
    assert graph.end("b") == ["c"]
    assert (graph.path_ms, graph.work_ms, graph.tasks) == (1, 1, 1)
    graph.again("a")
    assert (graph.path_ms, graph.tasks) == (6, 2)
