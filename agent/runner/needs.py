"""`@needs(…)` on a task or a flow, and `with needs(…):` around a submit."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from agent.errors import SettingError
from agent.model.needs import merged, read

_BATCH = "__orc_batch__"
_batch: ContextVar[Any] = ContextVar("orc_batch", default=None)
T = TypeVar("T")
_ATTRIBUTE = "__orc_needs__"
_overrides: ContextVar[Mapping[str, Any]] = ContextVar("orc_needs", default=MappingProxyType({}))


class needs:
    """What a task needs, in human units; what is not said is estimated, and not said to be interruptible means it is not.

    On a task or a plain function, above or below `@task`; on a flow, above `@flow`, where it is the default of all its
    tasks and where `deadline` and `budget` belong; or as a context manager around `submit` and `map`, for that call alone.

    Args:
        cpus: cores kept busy, ≥ 1.
        memory: most memory held at once, `"16 GiB"` or MiB.
        gpu: "required", "helps" or "no". gpus: how many, ≥ 0.
        runtime, max_runtime: usual and longest time, `"20 min"` or seconds. A budget reserves for max_runtime.
        checkpoint_interval: work lost at most by an interruption.
        deadline: of the root flow run, from its expected start.
        budget: name of a budget in pools.yaml.
        interruptible: may be stopped and run again from its start.
        priority: "critical", "normal" or "batch".
        task_class: the class whose history it shares.
        region, team, labels: for rules.
        batch_size: of a `map`: so many items in one task run, or "auto": as many as are worth it; by default each is a task run.

    Raises:
        SettingError: an unknown need, or a value out of range.
    """

    def __init__(self, *, batch_size: int | Literal["auto"] | None = None, **said: Any) -> None:
        if batch_size is not None and batch_size != "auto" and not (type(batch_size) is int and batch_size >= 1):
            raise SettingError(f'batch_size={batch_size!r}: it must be "auto" or a number of items ≥ 1')
        self.batch_size = batch_size
        self.fields = read(said)
        self._tokens: list[Token[Mapping[str, Any]]] = []
        self._batches: list[Token[Any]] = []

    def __call__(self, target: T) -> T:
        function = getattr(target, "fn", target)
        setattr(function, _ATTRIBUTE, merged(getattr(function, _ATTRIBUTE, {}), self.fields))
        if self.batch_size is not None:
            setattr(function, _BATCH, self.batch_size)
        hooks = getattr(target, "on_running_hooks", None)
        # a flow (tasks have hooks too): its runner may never be used, and the flows below it ask for its deadline
        if hooks is not None and not hasattr(target, "task_key"):
            from agent.runner.flow_run import mark

            if mark not in hooks:
                hooks.append(mark)
        return target

    def __enter__(self) -> needs:
        self._tokens.append(_overrides.set(merged(_overrides.get(), self.fields)))
        self._batches.append(_batch.set(self.batch_size if self.batch_size is not None else _batch.get()))
        return self

    def __exit__(self, *_: object) -> None:
        _overrides.reset(self._tokens.pop())
        _batch.reset(self._batches.pop())


def said_by(target: Any) -> Mapping[str, Any]:
    """Fields a task or a flow says of itself."""
    found: Mapping[str, Any] = getattr(getattr(target, "fn", target), _ATTRIBUTE, {})
    return found


def overrides() -> Mapping[str, Any]:
    """Fields said around the present call."""
    return _overrides.get()


def batch_size(target: Any) -> int | str | None:
    """Items in one task run of a `map` of the target: what is said around the call, else by the task."""
    around = _batch.get()
    return around if around is not None else getattr(getattr(target, "fn", target), _BATCH, None)
