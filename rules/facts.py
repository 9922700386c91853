"""The facts a rule may ask for: name, type, meaning. The reference in docs/ is generated from here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Fact(NamedTuple):
    """One fact of a placement group."""

    kind: type
    meaning: str
    values: tuple[str, ...] = ()


FACTS: Mapping[str, Fact] = {
    "task_class": Fact(str, "the class whose history the task shares"),
    "task": Fact(str, "the task's name"),
    "flow": Fact(str, "name of the flow it belongs to; empty for plain Dask"),
    "deployment": Fact(str, "name of the deployment, when there is one"),
    "team": Fact(str, "team it works for"),
    "region": Fact(str, "region its data must stay in; empty: anywhere"),
    "priority": Fact(str, "how urgent its author says it is", ("critical", "normal", "batch")),
    "gpu": Fact(str, "what a GPU is to it", ("required", "helps", "no")),
    "interruptible": Fact(bool, "its author says it may be stopped and run again"),
    "cpus": Fact(int, "cores it keeps busy"),
    "memory_mib": Fact(int, "memory it says it needs, MiB; 0: not said"),
    "input_mib": Fact(int, "size of its inputs, MiB, rounded up to a power of two"),
    "runtime_seconds": Fact(int, "its author's word on the runtime; 0: not said"),
    "has_deadline": Fact(bool, "its root run has a deadline"),
    "has_budget": Fact(bool, "it is charged to a budget"),
    "preemptions": Fact(int, "spot workers taken away under it so far"),
    "losses": Fact(int, "workers lost under it without notice so far"),
    "hour": Fact(int, "hour of the day, UTC, 0 to 23"),
    "weekday": Fact(int, "day of the week, UTC, Monday is 0"),
}
#: facts of a task that says nothing, where they are not empty, zero or false
UNSAID: Mapping[str, str | int | bool] = {"priority": "normal", "gpu": "no", "cpus": 1}
#: any label of a task's needs is a text fact of this prefix; a label that is not there is the empty text
LABEL = "label."
#: fields a pool selector may name, beside label.NAME
SELECTS: Mapping[str, tuple[str, ...]] = {
    "kind": ("gpu", "spot", "on-demand"),
    "market": ("spot", "on-demand"),
    "pool": (),
    "gpu_model": (),
}


def fact(name: str) -> Fact | None:
    """The fact of that name, labels included; None when there is none."""
    return (
        Fact(str, "a label of the task's needs")
        if name.startswith(LABEL) and len(name) > len(LABEL)
        else FACTS.get(name)
    )
