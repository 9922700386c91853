"""What a task says of itself. What is not said is estimated, and not said to be interruptible means it is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast, get_args

from agent.errors import SettingError
from agent.model import units

Gpu = Literal["required", "helps", "no"]
Priority = Literal["critical", "normal", "batch"]
PRIORITY_RANK: Mapping[str, int] = {"critical": 0, "normal": 1, "batch": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """A task's needs, in integers. `None` means not said."""

    #: cores the task keeps busy, ≥ 1
    cpus: int = 1
    #: most memory it holds at once, MiB; None: whatever a slot of the worker has
    memory_mib: int | None = None
    #: whether a GPU is required, helps, or is of no use
    gpu: Gpu = "no"
    #: GPUs taken when it runs where there are some, ≥ 0
    gpus: int = 0
    #: the author's word on its usual runtime, ms
    runtime_ms: int | None = None
    #: longest it may run, ms; the most a budget reserves for it
    max_runtime_ms: int | None = None
    #: work lost at most when it is interrupted, ms; None: all of it
    checkpoint_ms: int | None = None
    #: relative deadline of the root run, ms (of a flow, or of a plain Dask graph)
    deadline_ms: int | None = None
    #: budget it is charged to: a declared name
    budget: str | None = None
    #: may be stopped and run again
    interruptible: bool = False
    #: critical before normal before batch
    priority: Priority = "normal"
    #: the class whose history it shares; None: the task's own name and code
    task_class: str | None = None
    #: region its data must stay in; None: anywhere
    region: str | None = None
    #: team it works for
    team: str | None = None
    #: what rules may ask for as `label.NAME`
    labels: tuple[tuple[str, str], ...] = ()
    #: Dask resources asked for by `dask.annotate(resources=…)`, name and thousandths
    resources: tuple[tuple[str, int], ...] = ()


#: what an author may write, and the field it becomes
SAID: Mapping[str, str] = {
    "cpus": "cpus",
    "memory": "memory_mib",
    "gpu": "gpu",
    "gpus": "gpus",
    "runtime": "runtime_ms",
    "max_runtime": "max_runtime_ms",
    "checkpoint_interval": "checkpoint_ms",
    "deadline": "deadline_ms",
    "budget": "budget",
    "interruptible": "interruptible",
    "priority": "priority",
    "task_class": "task_class",
    "region": "region",
    "team": "team",
    "labels": "labels",
}
_DURATIONS = {"runtime", "max_runtime", "checkpoint_interval", "deadline"}


def read(said: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `Needs` from what an author wrote, in human units. Raises SettingError naming the need."""
    out: dict[str, Any] = {}
    for name, value in said.items():
        if name not in SAID:
            raise SettingError(f"needs: unknown need {name!r}; known are {', '.join(SAID)}")
        if value is None:
            continue
        out[SAID[name]] = _one(name, value)
    if out.get("gpu") == "no" and out.get("gpus"):
        raise SettingError("needs: gpus is given but gpu='no'; say gpu='required' or gpu='helps'")
    if out.get("gpu") in ("required", "helps"):
        out.setdefault("gpus", 1)
    elif out.get("gpus"):
        out["gpu"] = "required"
    return out


def _one(name: str, value: Any) -> Any:  # noqa: C901
    if name == "memory":
        return units.memory_mib(value)
    if name in _DURATIONS:
        ms = units.duration_ms(value)
        if ms == 0:
            raise SettingError(f"needs: {name}={value!r} must be longer than nothing")
        return ms
    if name in ("cpus", "gpus"):
        if isinstance(value, bool) or not isinstance(value, int) or value < (1 if name == "cpus" else 0):
            raise SettingError(f"needs: {name}={value!r} must be a whole number, at least {1 if name == 'cpus' else 0}")
        return value
    if name == "gpu" and value not in get_args(Gpu):
        raise SettingError(f"needs: gpu={value!r} must be one of {', '.join(get_args(Gpu))}")
    if name == "priority" and value not in get_args(Priority):
        raise SettingError(f"needs: priority={value!r} must be one of {', '.join(get_args(Priority))}")
    if name == "interruptible" and not isinstance(value, bool):
        raise SettingError(f"needs: interruptible={value!r} must be true or false")
    if name == "labels":
        if not isinstance(value, Mapping):
            raise SettingError(f"needs: labels={value!r} must be a mapping of names to values")
        return tuple(sorted((str(k), str(v).lower() if isinstance(v, bool) else str(v)) for k, v in value.items()))
    return str(value) if name in ("budget", "task_class", "region", "team") else value


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers win field by field: the flow's, then the task's, then the call's. Labels add up."""
    out: dict[str, Any] = {}
    for layer in layers:
        labels = tuple(sorted({**dict(out.get("labels", ())), **dict(layer.get("labels", ()))}.items()))
        out.update(layer)
        if labels:
            out["labels"] = labels
    return out


def from_fields(given: Mapping[str, Any]) -> Needs:
    """`Needs` from field values as they travel in an annotation (lists for tuples). Raises SettingError."""
    known = {f.name for f in fields(Needs)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise SettingError(f"needs: unknown field {unknown[0]!r}; runner and governor are of different versions")
    values = dict(given)
    for name in ("labels", "resources"):
        if name in values:
            values[name] = tuple((str(k), cast(Any, v)) for k, v in values[name])
    return Needs(**values)
