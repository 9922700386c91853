"""Flows the end-to-end tests run, each in a process of its own: `python -m tests.e2e.flows NAME '{"…": …}'`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import INPUTS, TASK_SOURCE

from agent import GovernedTaskRunner, checkpoint, needs


def _ran(folder: str, name: Any) -> None:
    """Leave a mark for each start of a body."""
    with (Path(folder) / f"{name}.ran").open("a") as file:
        file.write(f"{os.getpid()}\n")


@needs(interruptible=True, runtime="2s")
@task(cache_policy=INPUTS + TASK_SOURCE)
def work(folder: str, n: int, seconds: float) -> int:
    """Mark, wait, return."""
    _ran(folder, n)
    time.sleep(seconds)
    return n


@needs(runtime="2s")
@task
def safe(folder: str, n: int, seconds: float) -> int:
    """Like `work`, but never to be interrupted."""
    _ran(folder, f"safe{n}")
    time.sleep(seconds)
    return n


@task
def add(numbers: list[int]) -> int:
    """A dependent of all."""
    return sum(numbers)


@task
def fail() -> None:
    """Fails."""
    raise ValueError("on purpose")


@task
def outer() -> int:
    """Submits tasks of its own and waits for them."""
    return sum(inner.map(range(3)).result())


@task
def inner(n: int) -> int:
    """Of outer."""
    return n


@needs(memory="256 MiB", runtime="2s")
@task
def hungry(folder: str, hard: bool) -> int:
    """Runs out of memory the first time: with an error, or by the death of its worker."""
    _ran(folder, "hungry")
    if len((Path(folder) / "hungry.ran").read_text().split()) > 1:
        return 1
    if not hard:
        raise MemoryError("on purpose")
    eaten = bytearray(900 * 2**20)
    eaten[::4096] = bytes(len(eaten[::4096]))
    time.sleep(2)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def _climbed(folder: str, name: str, steps: int) -> int:
    """The steps that its checkpoint does not hold, one each fifth of a second."""
    _ran(folder, name)
    for step in range(checkpoint.load(default=0), steps):
        _ran(folder, f"step{step}")
        time.sleep(0.2)
        checkpoint.save(step + 1)
    return steps


@needs(interruptible=True, runtime="4s", checkpoint_interval="200 ms")
@task
def climb(folder: str, steps: int) -> int:
    """A step at a time, with a checkpoint at each."""
    return _climbed(folder, "climb", steps)


@needs(interruptible=True, runtime="1s", checkpoint_interval="200 ms")
@task
def stall(folder: str) -> int:
    """Three steps; on the first worker the second takes half a minute, elsewhere nothing does."""
    first = not Path(folder, "stall.ran").exists()
    _ran(folder, "stall")
    for step in range(checkpoint.load(default=0), 3):
        _ran(folder, f"step{step}")
        time.sleep(26 if first and step == 1 else 0.1)
        checkpoint.save(step + 1)
    return 3


@needs(interruptible=True, runtime="10 min", labels={"on": "spot"})
@task
def block(folder: str, n: int) -> None:
    """Said to be long; done when it is told."""
    _ran(folder, f"block{n}")
    while not Path(folder, "go").exists():
        time.sleep(0.1)


@needs(interruptible=True, runtime="3 min", checkpoint_interval="200 ms")
@task
def ascend(folder: str, steps: int) -> int:
    """As climb, and known to be longer."""
    return _climbed(folder, "ascend", steps)


@task
def tiny(n: int) -> int:
    """Hardly anything."""
    return n


@flow(task_runner=GovernedTaskRunner)
def crumbs(count: int) -> int:
    """Many small items, in chunks of a size that is found."""
    with needs(batch_size="auto"):
        return sum(tiny.map(range(count)).result())


@flow(task_runner=GovernedTaskRunner)
def eating(folder: str, hard: bool = False) -> int:
    """One hungry task."""
    result: int = hungry.submit(folder, hard).result()
    return result


@flow(task_runner=GovernedTaskRunner)
def climbing(folder: str, steps: int) -> int:
    """One task with checkpoints."""
    result: int = climb.submit(folder, steps).result()
    return result


@flow(task_runner=GovernedTaskRunner)
def stalling(folder: str) -> int:
    """One task on a worker that is too slow."""
    result: int = stall.submit(folder).result()
    return result


@flow(task_runner=GovernedTaskRunner)
def returning(folder: str, steps: int) -> int:
    """A task that finds spot full, and time enough to go back to it."""
    blocks = [block.submit(folder, n) for n in range(2)]
    until = time.monotonic() + 60
    while len(list(Path(folder).glob("block*.ran"))) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    future = ascend.submit(folder, steps)
    done = future.result()
    for each in blocks:
        each.result()
    return done


@flow(task_runner=GovernedTaskRunner)
def many(folder: str, count: int, seconds: float, kind: str = "work") -> int:
    """Map and sum."""
    mapped = (work if kind == "work" else safe).map([folder] * count, range(count), [seconds] * count)
    result: int = add.submit(mapped).result()
    return result


@flow(task_runner=GovernedTaskRunner)
def nested() -> int:
    """A task that waits for tasks."""
    result: int = outer.submit().result()
    return result


@flow(task_runner=GovernedTaskRunner)
def failing() -> None:
    """Ends as its task does."""
    fail.submit().result()


@flow(task_runner=GovernedTaskRunner)
def needing(folder: str, said: dict[str, Any]) -> int:
    """One task with needs said at the call."""
    with needs(**said):
        future = safe.submit(folder, 0, 0.2)
    result: int = future.result()
    return result


@needs(team="labelled", labels={"ask": "yes"})
@flow(task_runner=GovernedTaskRunner)
def asking(folder: str) -> int:
    """Its tasks carry a label that a rule escalates."""
    result: int = safe.submit(folder, 0, 0.1).result()
    return result


@needs(budget="dollar", interruptible=True)
@flow(task_runner=GovernedTaskRunner)
def spending(folder: str, count: int) -> int:
    """Charged to a budget."""
    return sum(work.map([folder] * count, range(count), [0.2] * count).result())


@needs(deadline="1 h")
@flow(task_runner=GovernedTaskRunner)
def above(folder: str) -> int:
    """A flow in a flow."""
    return many(folder, 2, 0.1)


if __name__ == "__main__":
    print(json.dumps({"result": globals()[sys.argv[1]](**json.loads(sys.argv[2]))}))
