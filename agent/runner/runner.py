"""`GovernedTaskRunner`: prefect-dask's `DaskTaskRunner`, whose tasks say what they need and whose places ORC decides."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable
from functools import cached_property
from typing import Any
from uuid import uuid4

import dask
import distributed
from distributed import Future
from prefect.context import AssetContext, EngineContext, SettingsContext, TagsContext, TaskRunContext, serialize_context
from prefect.futures import PrefectFutureList
from prefect.tasks import Task
from prefect.utilities.engine import collect_task_run_inputs_sync
from prefect_dask import DaskTaskRunner
from prefect_dask.client import PrefectDaskClient

from agent.errors import OrcError, SchedulerError, SettingError
from agent.model.needs import merged
from agent.runner import run as runs
from agent.runner.future import GovernedFuture
from agent.runner.said import overrides, said_by
from agent.scheduler import protocol as p
from agent.settings import Settings, load
from agent.worker.body import run_task
from agent.worker.carried import RunInfo

#: hosts a governor in this process; by its name, since only a run with a cluster of its own needs the planner here
HOST = "agent.governor.hosted:host"
_ADAPT = (
    "adapt_kwargs cannot scale a governed scheduler: set workers.min and workers.max of its pools in pools.yaml instead"
)


class GovernedTaskRunner(DaskTaskRunner):
    """Takes every argument of `DaskTaskRunner`.

    Without `address` and cluster arguments it uses `ORC_SCHEDULER`. `ORC_MODE=off` makes it the plain runner at once.

    Raises:
        SettingError: `adapt_kwargs` on a governed scheduler, or a wrong `ORC_…` setting.
        SchedulerError: the scheduler has no ORC extension and `ORC_GOVERNED` is `required`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.address: str | None
        # the environment is not read here: runners are built when a flow's module is imported
        self._run: RunInfo | None = None
        self._context: dict[str, Any] | None = None
        self._specs: dict[Any, dict[str, Any]] = {}
        self._mode: str | None = None
        self._seceded = False

    @cached_property
    def _settings(self) -> Settings:
        return load()

    @property
    def client(self) -> PrefectDaskClient:
        """The Dask client; connected on first access."""
        if (
            self._client is None
            and not (self.address or self._cluster or self.cluster_class or self.cluster_kwargs)
            and self._settings.scheduler
        ):
            if self.adapt_kwargs:
                raise SettingError(_ADAPT)
            self.address = self._settings.scheduler
        client: PrefectDaskClient = DaskTaskRunner.client.fget(self)
        return client

    def duplicate(self) -> GovernedTaskRunner:
        """A new runner with the same settings, for another flow run."""
        return type(self)(
            address=self.address,
            cluster_class=self.cluster_class,
            cluster_kwargs=self.cluster_kwargs,
            adapt_kwargs=self.adapt_kwargs,
            client_kwargs=self.client_kwargs,
            performance_report_path=self.performance_report_path,
        )

    # ------------------------------------------------------------------ submitting
    def submit(
        self,
        task: Task[Any, Any],
        parameters: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        dependencies: dict[str, set[Any]] | None = None,
    ) -> Any:
        """Send one task to Dask, held until it is bound."""
        if self._governed_mode() == "off":
            with dask.annotate(**{p.ANNOTATION: {p.MODE: "off"}}):
                return super().submit(task, parameters, wait_for, dependencies)
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        self._lend()
        parameters = self._optimize_futures(parameters)
        waits = self._optimize_futures(wait_for) if wait_for else None
        task_run_id = uuid4()
        inputs = {name: collect_task_run_inputs_sync(value, future_cls=Future) for name, value in parameters.items()}
        if dependencies:
            inputs = {name: {*found, *dependencies.get(name, set())} for name, found in inputs.items()}
        says = self._says(task)
        with dask.annotate(**{p.ANNOTATION: says}):
            future = self.client.submit(
                run_task,
                task=task,
                task_run_id=task_run_id,
                parameters=parameters,
                wait_for=waits,
                dependencies=inputs,
                return_type="state",
                context=self._serialized(task, task_run_id, inputs),
                run=self._run,
                key=f"{task.name}-{task_run_id.hex}",
                pure=False,
            )
        return GovernedFuture(
            wrapped_future=future,
            task_run_id=task_run_id,
            task=task,
            flow_run_id=self._run.flow_run if self._run else "",
        )

    def map(
        self, task: Task[Any, Any], parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFutureList[Any]:
        """Send one task for each item."""
        return super().map(task, parameters, wait_for)

    def _says(self, task: Task[Any, Any]) -> dict[str, Any]:
        """The annotation: needs of the flow, the task and the call, and the run. One object for each distinct saying."""
        if self._run is None:
            self._run = runs.current()
        fields = merged(self._run.defaults, said_by(task), overrides())
        fields.pop("deadline_ms", None)
        key = (task.task_key, task.name, runs.fingerprint(fields))
        if key not in self._specs:
            needs = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
            run = self._run.travels()
            body = {
                p.NEEDS: needs,
                p.RUN: run,
                p.NAME: task.name,
                "task_class": task.task_key,
                p.MODE: self._governed_mode(),
            }
            self._specs[key] = {p.SPEC: runs.fingerprint(body), **body}
        return self._specs[key]

    def _serialized(self, task: Task[Any, Any], task_run_id: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """Prefect's context for the worker. Dumping the settings takes most of a submit's time, so it is done once for a flow run."""
        if self._context is None:
            self._context = serialize_context()
        tags, parent, flow = TagsContext.get(), TaskRunContext.get(), EngineContext.get()
        assets = AssetContext.from_task_and_inputs(
            task=task, task_run_id=task_run_id, task_inputs=inputs, copy_to_child_ctx=True
        )
        fresh = {
            "tags_context": tags.serialize() if tags else {},
            "task_run_context": parent.serialize() if parent else {},
            "asset_context": assets.serialize(),
        }
        if flow is None or SettingsContext.get() is None:
            return {**serialize_context(), **fresh}
        return {**self._context, **fresh}

    def _lend(self) -> None:
        """On a worker: leave the thread before waiting for nested tasks, which may need the same slot."""
        if self._seceded:
            return
        self._seceded = True
        try:
            distributed.get_worker()
        except ValueError:
            return
        if getattr(distributed.worker.thread_state, "key", None) is not None:
            distributed.secede()

    # ------------------------------------------------------------------ the scheduler
    def _governed_mode(self) -> str:
        """off, shadow or govern, as the settings say and the scheduler allows."""
        if self._mode is None:
            self._mode = self._settings.mode if self._settings.mode == "off" else self._ask()
        return self._mode

    def _ask(self) -> str:
        temporary = not self.address and (self._cluster is None)
        if temporary and self.client.cluster is not None and not self.adapt_kwargs:
            self._host()
        try:
            state = self.client.sync(self.client.scheduler.orc_state)
        except Exception as error:
            return self._ungoverned(
                f"the Dask scheduler at {self.client.scheduler.address} has no ORC extension ({error})", temporary
            )
        if state["degraded"]:
            return self._ungoverned("; ".join(state["degraded"]), temporary)
        if self.adapt_kwargs:
            raise SettingError(_ADAPT)
        if not state["epoch"]:
            self.logger.warning(
                "no governor follows %s yet; tasks are held until one does (orc up, or orc status)",
                self.client.scheduler.address,
            )
        return state["mode"] if state["mode"] != "govern" else self._settings.mode

    def _host(self) -> None:
        """Govern the run's own cluster from a thread of this process, until the run ends."""
        address = self.client.scheduler.address
        try:
            hosted = pkgutil.resolve_name(HOST)(self._settings, address)
        except OrcError as error:
            self.logger.warning("the run's own cluster at %s cannot be governed: %s", address, error)
            return
        # it ends before the client and the cluster do
        self._exit_stack.callback(hosted.stop)

    def _ungoverned(self, why: str, temporary: bool) -> str:
        if self._settings.governed == "required" and not temporary:
            raise SchedulerError(
                f"{why}; start it with --preload agent.scheduler.preload, or set ORC_GOVERNED=optional or ORC_MODE=off to run ungoverned"
            )
        self.logger.warning("this run is not governed: %s", why)
        return "off"
