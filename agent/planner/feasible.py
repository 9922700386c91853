"""Can a group run in a pool at all? Each test answers with the reason why not, or with nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.model.plans import Block
from agent.model.pools import Pool
from agent.model.snapshot import Group, PoolState
from agent.model.units import show_mib
from agent.model.verdicts import Verdict

Test = Callable[[Group, PoolState], str]


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why a pool cannot run a group: the test that it fails, in words, and by which rule."""

    test: Block
    text: str
    rule: str = ""


def gpus_taken(group: Group, pool: Pool) -> int:
    """GPUs one task of the group takes on a worker of the pool."""
    return min(group.needs.gpus, pool.gpus) if group.needs.gpu == "helps" else group.needs.gpus


def emulates_for_nothing(group: Group, pool: Pool) -> bool:
    """Whether its GPU is played by the CPU, at a GPU's price, for tasks that can do without one."""
    return pool.emulated and group.needs.gpu != "required"


def _override(group: Group, state: PoolState) -> str:
    if group.override is not None and group.override != state.pool.name:
        return f"overridden: a person chose {group.override}"
    return ""


def against(verdicts: Iterable[Verdict], pool: Pool) -> Verdict | None:
    """The first verdict that keeps tasks out of the pool."""
    for verdict in verdicts:
        verb = verdict.verb
        if verb == "forbid":
            if verdict.selects(pool):
                return verdict
        elif verb == "require" and not verdict.selects(pool):
            return verdict
    return None


def _rules(group: Group, state: PoolState) -> str:
    if not group.verdicts or (verdict := against(group.verdicts, state.pool)) is None:
        return ""
    return f"rule {verdict.rule} {'forbids it' if verdict.verb == 'forbid' else 'requires another'}: {verdict.reason}"


def _market(group: Group, state: PoolState) -> str:
    if state.pool.market == "spot" and not group.needs.interruptible:
        return "spot workers may be taken away and the task is not said to be interruptible"
    return ""


def _gpu(group: Group, state: PoolState) -> str:
    if group.needs.gpu == "required" and state.pool.gpus < group.needs.gpus:
        return (
            f"needs {group.needs.gpus} GPU{'s' if group.needs.gpus > 1 else ''} and its workers have {state.pool.gpus}"
        )
    return ""


def _cpus(group: Group, state: PoolState) -> str:
    if group.needs.cpus > state.pool.cpus:
        return f"needs {group.needs.cpus} cpus and its workers have {state.pool.cpus}"
    return ""


def _memory(group: Group, state: PoolState) -> str:
    if (group.needs.memory_mib or 0) > state.pool.memory_mib:
        return f"needs {show_mib(group.needs.memory_mib or 0)} and its workers have {show_mib(state.pool.memory_mib)}"
    return ""


def _resources(group: Group, state: PoolState) -> str:
    if not group.needs.resources:
        return ""
    offered = dict(state.pool.resources)
    for name, amount in group.needs.resources:
        if offered.get(name, 0) < amount:
            return f"the task asks for {amount / 1000:g} {name} and its workers offer {offered.get(name, 0) / 1000:g}"
    return ""


def _limits(_: Group, state: PoolState) -> str:
    if not state.workers and not state.starting and (state.pool.provider is None or state.pool.max_workers == 0):
        return "it has no workers and may launch none"
    return ""


#: in the order people would ask; the first that answers is the reason
TESTS: tuple[tuple[Block, Test], ...] = (
    ("gpu", _gpu),  # what can never change comes first
    ("cpus", _cpus),
    ("memory", _memory),
    ("resources", _resources),
    ("market", _market),  # then what its author said
    ("rule", _rules),  # then what people wrote
    ("override", _override),
    ("no workers", _limits),  # then what is there
)
#: tests whose answer means that no wait and no other rule would help
PHYSICAL: tuple[Test, ...] = (_gpu, _cpus, _memory, _resources)


def blocked(group: Group, state: PoolState) -> Blocked | None:
    """The first reason why the group cannot run in the pool."""
    for name, test in TESTS:
        if answer := test(group, state):
            verdict = against(group.verdicts, state.pool) if name == "rule" else None
            return Blocked(name, answer, verdict.rule if verdict is not None else "")
    return None


def distance(group: Group, state: PoolState) -> int:
    """How many of the tests the pool fails: the least is the nearest pool."""
    return sum(bool(test(group, state)) for _, test in TESTS)
