"""`@needs(…)` on a task or a flow, and `with needs(…):` around a submit."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from typing import Any, Literal, TypeVar

from agent.errors import SettingError
from agent.model.needs import merged, read
from agent.runner.declared_needs import ATTRIBUTE, BATCH, batch_around, needs_around

T = TypeVar("T")


class needs:
    """What a task needs, in human units.

    What is not said is estimated, and not said to be interruptible means it is not.

    On a task or a plain function, above or below `@task`; on a flow, above `@flow`, where it is the default of all its
    tasks and where `deadline` and `budget` belong; or as a context manager around `submit` and `map`, for that call
    alone.

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
        batch_size: of a `map`: so many items in one task run, or "auto": as many as are worth it; by default each is a
            task run.

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
        setattr(function, ATTRIBUTE, merged(getattr(function, ATTRIBUTE, {}), self.fields))
        if self.batch_size is not None:
            setattr(function, BATCH, self.batch_size)
        hooks = getattr(target, "on_running_hooks", None)
        # a flow (tasks have hooks too): its runner may never be used, and the flows below it ask for its deadline
        if hooks is not None and not hasattr(target, "task_key"):
            from agent.runner.flow_run import mark  # not at the top: it imports Prefect

            if mark not in hooks:
                hooks.append(mark)
        return target

    def __enter__(self) -> needs:
        self._tokens.append(needs_around.set(merged(needs_around.get(), self.fields)))
        self._batches.append(batch_around.set(self.batch_size if self.batch_size is not None else batch_around.get()))
        return self

    def __exit__(self, *_: object) -> None:
        needs_around.reset(self._tokens.pop())
        batch_around.reset(self._batches.pop())
