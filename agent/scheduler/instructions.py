"""What the governor says: read whole and checked, before any of it is done."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from agent import errors
from agent.errors import InstructionError, OrcError
from agent.model.capacity import Load, PoolSpec

MODES = ("govern", "shadow", "off")
#: what the governor's figures say of each held task
HELD_FIELDS = frozenset({"flow_run", "task", "reason", "why", "release"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BindOrder:
    """Tasks that go to a pool."""

    pool: str
    #: what one of them takes
    load: Load
    #: tasks that may wait on a worker for each of its slots
    ahead: int
    keys: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseOrder:
    """A held task that is to fail."""

    key: Hashable
    error: type[OrcError]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaveOrder:
    """A running task that is to leave its worker at its next checkpoint."""

    key: Hashable
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """Everything that is said at once."""

    #: None: as they are
    pools: tuple[PoolSpec, ...] | None = None
    #: None: as it is
    mode: str | None = None
    #: addresses of workers that get nothing new, that do again, and whose tasks are asked back
    drain: tuple[str, ...] = ()
    undrain: tuple[str, ...] = ()
    withdraw: tuple[str, ...] = ()
    binds: tuple[BindOrder, ...] = ()
    refuse: tuple[RefuseOrder, ...] = ()
    leave: tuple[LeaveOrder, ...] = ()
    #: for people; None: as they are
    figures: Mapping[str, Any] | None = None


def read(told: Mapping[str, Any]) -> Instructions:
    """The instructions of one message.

    Raises:
        InstructionError: one of them is not in its form. Then none of them is to be done.
    """
    if unknown := sorted(told.keys() - _READERS.keys()):
        raise InstructionError(f"there is no instruction {unknown[0]!r}: governor and extension are of two versions")
    return Instructions(**{name: _READERS[name](value, name) for name, value in told.items()})


# ---------------------------------------------------------------------- each of them
def _pools(value: Any, name: str) -> tuple[PoolSpec, ...] | None:
    if value is None:
        return None
    pools = _each(_pool)(value, name)
    names = [pool.name for pool in pools]
    if twice := next((each for each in names if names.count(each) > 1), None):
        raise InstructionError(f"{name}: there are two pools {twice!r}")
    return pools


def _pool(value: Any, name: str) -> PoolSpec:
    try:
        pool = PoolSpec.read(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InstructionError(f"{name} is no pool: {type(error).__name__}: {error}") from error
    chosen = pool.selector
    if not all(isinstance(glob, str | None) for glob in (chosen.name, chosen.host)):
        raise InstructionError(f"{name}.selector: a name and a host are texts, not {chosen!r}")
    if chosen.nthreads is not None:
        _count(chosen.nthreads, f"{name}.selector.nthreads")
    return pool


def _mode(value: Any, name: str) -> str | None:
    if value is not None and value not in MODES:
        raise InstructionError(f"{name} is one of {', '.join(MODES)}, not {value!r}")
    return value


def _bind(value: Any, name: str) -> BindOrder:
    fields = _fields(value, name, ("pool", "cpus", "memory_mib", "gpus", "ahead", "keys"))
    cpus, memory_mib, gpus, ahead = (
        _count(fields[field], f"{name}.{field}") for field in ("cpus", "memory_mib", "gpus", "ahead")
    )
    return BindOrder(
        pool=_text(fields["pool"], f"{name}.pool"),
        load=Load(cpus=cpus, memory_mib=memory_mib, gpus=gpus),
        ahead=ahead,
        keys=_keys(fields["keys"], f"{name}.keys"),
    )


def _refusal(value: Any, name: str) -> RefuseOrder:
    key, kind, why = _parts(value, name, 3)
    error = getattr(errors, kind, None) if isinstance(kind, str) else None
    if not (isinstance(error, type) and issubclass(error, OrcError)):
        raise InstructionError(f"{name}: {kind!r} is no error of ORC's")
    return RefuseOrder(key=_key(key, name), error=error, why=_text(why, name))


def _leave(value: Any, name: str) -> LeaveOrder:
    key, why = _parts(value, name, 2)
    return LeaveOrder(key=_key(key, name), why=_text(why, name))


def _figures(value: Any, name: str) -> Mapping[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or not isinstance(value.get("runtimes_ms", {}), Mapping):
        raise InstructionError(f"{name} are no figures: {value!r:.100}")
    for held in _each(_mapping)(value.get("held", ()), f"{name}.held"):
        if missing := HELD_FIELDS - held.keys():
            raise InstructionError(f"{name}.held lacks {', '.join(sorted(missing))}")
    return value


# ---------------------------------------------------------------------- their parts
def _each(read_one: Callable[[Any, str], T]) -> Callable[[Any, str], tuple[T, ...]]:
    """A reader of many."""

    def read_all(value: Any, name: str) -> tuple[T, ...]:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
            raise InstructionError(f"{name} is a list, not {value!r:.100}")
        return tuple(read_one(one, f"{name}[{at}]") for at, one in enumerate(value))

    return read_all


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InstructionError(f"{name} has fields, and is not {value!r:.100}")
    return value


def _fields(value: Any, name: str, wanted: Sequence[str]) -> Mapping[str, Any]:
    fields = _mapping(value, name)
    if fields.keys() != set(wanted):
        raise InstructionError(f"{name} has {', '.join(wanted)}, not {', '.join(map(str, fields))}")
    return fields


def _parts(value: Any, name: str, count: int) -> Sequence[Any]:
    if not isinstance(value, tuple | list) or len(value) != count:
        raise InstructionError(f"{name} has {count} parts, and is not {value!r:.100}")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise InstructionError(f"{name} is a text, not {value!r:.100}")
    return value


def _count(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InstructionError(f"{name} is a whole number from 0 on, not {value!r:.100}")
    return value


def _key(value: Any, name: str) -> Hashable:
    try:
        hash(value)
    except TypeError as error:
        raise InstructionError(f"{name}: {value!r:.100} is no key of a task") from error
    key: Hashable = value
    return key


def _keys(value: Any, name: str) -> tuple[Hashable, ...]:
    # thousands at once: looked at one by one only where there is one that is none
    if isinstance(value, tuple | list):
        try:
            set(value)
        except TypeError:
            pass
        else:
            return tuple(value)
    return _each(_key)(value, name)


_READERS: Mapping[str, Callable[[Any, str], Any]] = {
    "pools": _pools,
    "mode": _mode,
    "drain": _each(_text),
    "undrain": _each(_text),
    "withdraw": _each(_text),
    "binds": _each(_bind),
    "refuse": _each(_refusal),
    "leave": _each(_leave),
    "figures": _figures,
}
