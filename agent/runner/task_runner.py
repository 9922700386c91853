"""prefect-dask's `DaskTaskRunner`, whose tasks say what they need and whose places ORC decides."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast, get_args

import dask
from prefect.futures import PrefectFutureList
from prefect.task_runners import TaskRunner
from prefect.tasks import Task
from prefect_dask import DaskTaskRunner
from prefect_dask.client import PrefectDaskClient

from agent.errors import SettingError
from agent.prefect_events.queue import current_queue
from agent.runner import state_redelivery
from agent.runner.annotations import fields_of
from agent.runner.chunked_map import ChunkedMap, Expanded
from agent.runner.declared_needs import batch_size
from agent.runner.mode import ADAPT, Governance
from agent.runner.releases import Releases
from agent.runner.submission import Submission
from agent.scheduler import protocol
from agent.settings import Mode, Settings, load


class GovernedTaskRunner(DaskTaskRunner):
    """Takes every argument of `DaskTaskRunner`.

    Args:
        mode: this flow's own word: `shadow` or `govern`, whatever the scheduler's mode is, or `off`.
        resubmit: when the scheduler is lost and there is a new one at its address: True, submit again what has no known
            result, as the same task runs; False, the flow run crashes; None, submit again where results are persisted.
        resubmit_within: seconds the new scheduler may take.

    Without `address` and cluster arguments it uses `ORC_SCHEDULER`. `ORC_MODE=off` makes it the plain runner at once.

    Raises:
        SettingError: `adapt_kwargs` on a governed scheduler, or a wrong `ORC_…` setting.
        SchedulerError: the scheduler has no ORC extension, and governing was asked for: by ORC_SCHEDULER, a mode,
            pools, or `ORC_GOVERNED=required`.
    """

    def __init__(
        self,
        *args: Any,
        mode: Mode | None = None,
        resubmit: bool | None = None,
        resubmit_within: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.resubmit, self.resubmit_within = resubmit, resubmit_within
        #: a live cluster of the user's; it cannot travel to workers, and need not
        self._given = self._cluster
        #: its cluster lives as long as the run
        self._own_cluster = False
        self.address: str | None
        if mode not in (None, *get_args(Mode)):
            raise SettingError(f"GovernedTaskRunner: mode={mode!r} must be one of {', '.join(get_args(Mode))}")
        # the environment is not read here: runners are built when a flow's module is imported
        self._governance = Governance(
            mode,
            settings=lambda: self._settings,
            client=lambda: self.client,
            at_end=lambda call: self._exit_stack.callback(call),
            temporary=lambda: self._own_cluster,
            adapted=bool(self.adapt_kwargs),
        )
        self._submission = Submission(lambda: self.client, self._governance, resubmit, resubmit_within)
        self._chunked_map = ChunkedMap(
            self._submission.send_chunks, self._governance.learned_ms, lambda: sum(self.client.nthreads().values())
        )
        #: equal runners are not the same one
        self._family: weakref.WeakValueDictionary[int, GovernedTaskRunner] = weakref.WeakValueDictionary()
        self._family[id(self)] = self

    @property
    def mode(self) -> Mode | None:
        """The flow's own word."""
        return self._governance.word

    @cached_property
    def _settings(self) -> Settings:
        return load()

    @property
    def client(self) -> PrefectDaskClient:
        """The Dask client; connected on first access."""
        known = self._client
        if known is None and not (self.address or self._cluster):
            self._own_cluster = bool(self.cluster_class or self.cluster_kwargs or not self._settings.scheduler)
            if self._own_cluster:
                _forget_a_main_without_file()
            elif self.adapt_kwargs:
                raise SettingError(ADAPT)
            else:
                self.address = self._settings.scheduler
        client: PrefectDaskClient = DaskTaskRunner.client.fget(self)
        if client is not known and not client.asynchronous:
            Releases(client)
        return client

    def duplicate(self) -> GovernedTaskRunner:
        """A new runner with the same settings, for another flow run."""
        made = _made(type(self), self._arguments())
        made._cluster = made._given = self._given  # noqa: SLF001
        # Prefect cancels the runner of the flow, never the one of the flow run
        self._family[id(made)] = made
        made._family = self._family  # noqa: SLF001
        return made

    def _arguments(self) -> dict[str, Any]:
        return {
            "address": self.address,
            "cluster_class": self.cluster_class,
            "cluster_kwargs": self.cluster_kwargs,
            "adapt_kwargs": self.adapt_kwargs,
            "client_kwargs": self.client_kwargs,
            "performance_report_path": self.performance_report_path,
            "mode": self.mode,
            "resubmit": self.resubmit,
            "resubmit_within": self.resubmit_within,
        }

    def __reduce__(self) -> Any:
        return _made, (type(self), self._arguments())

    def cancel_all(self) -> None:
        """Cancel what this runner, and each made of it, has sent and not seen end."""
        for runner in list(self._family.values()):
            runner._submission.resubmission.cancel()  # noqa: SLF001

    def __exit__(self, *arguments: Any) -> None:
        sent = self._submission
        sent.end()
        if sent.begun_run and self._client is not None:
            state_redelivery.redeliver(
                sent.begun_run,
                asked=lambda: (
                    state_redelivery.many(sent.factory.emitted)
                    or bool(sent.resubmission.recovered)
                    or self._governance.lost_any()
                ),
                ends=sent.resubmission.ends,
                emit=sent.factory.emit_state,
                queue=current_queue(),
                logger=self.logger,
            )
        if self._client is not None and self._client.status == "running":
            sent.withdraw()
        super().__exit__(*arguments)

    # ------------------------------------------------------------------ submitting
    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> Any:
        """Send one task to Dask, held until it is bound. Raises TaskError where it cannot be pickled."""
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        if self._governance.mode == "off":
            with dask.annotate(**{protocol.ANNOTATION: {protocol.MODE: "off"}}):
                return super().submit(task, parameters, wait_for, dependencies)
        sent = self._submission
        return sent.send(task, [sent.factory.prepare(task, sent.run, parameters, wait_for, dependencies)])[0]

    def map(
        self, task: Task[Any, Any], parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFutureList[Any]:
        """Send one task for each item, all in one message; where a `batch_size` is said, one for so many items."""
        if self._governance.mode == "off":
            return super().map(task, parameters, wait_for)
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        sent, run, expanded = self._submission, self._submission.run, Expanded()
        TaskRunner.map(cast(Any, expanded), task, parameters, wait_for)
        said = None if task.isgenerator else batch_size(task)
        futures: Sequence[Any] | None = None
        if said is not None:
            futures = self._chunked_map.map(task, expanded, wait_for, said, fields_of(task, run))
        if futures is None and expanded.items:
            code = sent.factory.code(task)
            prepared = [
                sent.factory.prepare(task, run, item, wait_for, expanded.dependencies, code) for item in expanded.items
            ]
            futures = sent.send(task, prepared)
        made: PrefectFutureList[Any] = cast(Any, PrefectFutureList)(futures or ())
        return made


def _made(kind: type[GovernedTaskRunner], arguments: Mapping[str, Any]) -> GovernedTaskRunner:
    return kind(**arguments)


def _forget_a_main_without_file() -> None:
    """A script that came by standard input: the processes of a cluster of its own would look for a file `<stdin>`."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if main is not None and file is not None and not Path(file).exists():
        del main.__file__
