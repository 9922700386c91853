"""`GovernedTaskRunner`: prefect-dask's `DaskTaskRunner`, whose tasks say what they need and whose places ORC decides."""

from __future__ import annotations

import pkgutil
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast, get_args

import dask
import distributed
from prefect.futures import PrefectFutureList
from prefect.states import Pending
from prefect.task_runners import TaskRunner
from prefect.tasks import Task
from prefect.utilities.annotations import opaque
from prefect_dask import DaskTaskRunner
from prefect_dask.client import PrefectDaskClient

from agent.errors import OrcError, SchedulerError, SettingError
from agent.model.needs import merged
from agent.prefect_events.queue import current_queue
from agent.runner import chunked_map, state_redelivery
from agent.runner import flow_run as runs
from agent.runner.chunked_map import Expanded
from agent.runner.futures import GovernedFuture, Results
from agent.runner.hold_reporter import HoldReporter
from agent.runner.needs import batch_size, overrides, said_by
from agent.runner.releases import Releases
from agent.runner.resubmission import Resubmission
from agent.runner.task_runs import Prepared, TaskRunFactory
from agent.scheduler import protocol as p
from agent.settings import Mode, Settings, load
from agent.worker.chunks import chunked
from agent.worker.payload import PLACE, StoredResult
from agent.worker.run_context import RunInfo
from agent.worker.task_body import run_task

#: hosts a governor in this process; by its name, since only a run with a cluster of its own needs the planner here
HOST = "agent.governor.embedded:host"
_ADAPT = (
    "adapt_kwargs cannot scale a governed scheduler: set workers.min and workers.max of its pools in pools.yaml instead"
)


#: mean ms of an item by task class, as this process measured it
_measured: dict[str, float] = {}


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
        SchedulerError: the scheduler has no ORC extension and `ORC_GOVERNED` is `required`.
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
        self.address: str | None
        if mode not in (None, *get_args(Mode)):
            raise SettingError(f"GovernedTaskRunner: mode={mode!r} must be one of {', '.join(get_args(Mode))}")
        self.mode = mode
        # the environment is not read here: runners are built when a flow's module is imported
        self._run: RunInfo | None = None
        self._factory = TaskRunFactory(self._put)
        self._results = Results()
        self._resubmission = Resubmission(
            within_seconds=resubmit_within, always=resubmit,
            ready=self._can_take, restore=self._restore, send=self._send_again,
        )  # fmt: skip
        self._hold_reporter = HoldReporter(self._resubmission.waiting, self._why_held, self._tell_held)
        self._chunked: dict[int, tuple[Task[Any, Any], Task[Any, Any]]] = {}
        self._gathering: list[Prepared] | None = None
        self._specs: dict[str, dict[str, Any]] = {}
        #: (task, what is said around the call) → what it says, without a fingerprint
        self._quick: dict[tuple[int, int], tuple[Any, dict[str, Any]]] = {}
        self._mode: str | None = None
        self._seceded = False
        #: workers that the scheduler had lost when this runner began; None: it does not count them
        self._broken: int | None = None
        #: equal runners are not the same one
        self._family: weakref.WeakValueDictionary[int, GovernedTaskRunner] = weakref.WeakValueDictionary()
        self._family[id(self)] = self

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
        known = self._client
        client: PrefectDaskClient = DaskTaskRunner.client.fget(self)
        if client is not known and not client.asynchronous:
            Releases(client)
        return client

    def duplicate(self) -> GovernedTaskRunner:
        """A new runner with the same settings, for another flow run."""
        made = _made(type(self), self._arguments())
        made._cluster = self._given
        # Prefect cancels the runner of the flow, never the one of the flow run
        self._family[id(made)] = made
        made._family = self._family
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
            runner._resubmission.cancel()

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
        if self._governed_mode() == "off":
            with dask.annotate(**{p.ANNOTATION: {p.MODE: "off"}}):
                return super().submit(task, parameters, wait_for, dependencies)
        if self._run is None:
            self._run = runs.current()
        prepared = self._factory.prepare(task, self._run, parameters, wait_for, dependencies)
        if self._gathering is not None:
            self._gathering.append(prepared)
            return None
        return self._send(task, [prepared])[0]

    def map(
        self, task: Task[Any, Any], parameters: dict[str, Any], wait_for: Iterable[Any] | None = None
    ) -> PrefectFutureList[Any]:
        """Send one task for each item, all in one message; where a `batch_size` is said, one for so many items."""
        if self._governed_mode() == "off":
            return super().map(task, parameters, wait_for)
        said = batch_size(task)
        if said is not None and not task.isgenerator:
            return self._map_batched(task, parameters, wait_for, said)
        gathered: list[Prepared] = []
        self._gathering = gathered
        try:
            super().map(task, parameters, wait_for)
        finally:
            self._gathering = None
        return _list(self._send(task, gathered))

    def _map_batched(
        self, task: Task[Any, Any], parameters: dict[str, Any], wait_for: Iterable[Any] | None, said: int | str
    ) -> PrefectFutureList[Any]:
        if not self._started:
            raise RuntimeError("The task runner must be started before submitting work.")
        expanded = Expanded()
        TaskRunner.map(cast(Any, expanded), task, parameters, wait_for)
        items, depends = expanded.items, expanded.dependencies
        if expanded.nested(items):
            # an item whose own input fails must fail alone
            return _list([self.submit(task, item, wait_for, depends) for item in items])
        made: list[GovernedFuture] = []
        done = 0
        if said == "auto":
            chosen, probe = self._chosen(task, items, wait_for, depends)
            if probe is not None:
                made, done = [probe], min(chunked_map.PROBE, len(items))
        else:
            chosen = chunked_map.Size(items=int(said), why="said by the author")
        if chosen.items == 1 and not made:
            return _list([self.submit(task, item, wait_for, depends) for item in items])
        sizes = [done] if made else []
        rest = chunked_map.split(items[done:], chosen.items)
        made += self._send_chunks(task, rest, wait_for, depends, chosen.travels(len(items)))
        sizes += [len(chunk) for chunk in rest]
        return _list(
            [chunked_map.ItemFuture(chunk, at) for chunk, count in zip(made, sizes, strict=True) for at in range(count)]
        )

    def _chosen(
        self, task: Task[Any, Any], items: Sequence[Any], wait_for: Any, depends: Any
    ) -> tuple[chunked_map.Size, GovernedFuture | None]:
        """The chunk size; with the chunk that was run to find it, where nothing was known of the class."""
        if self._run is None:
            self._run = runs.current()
        fields = merged(self._run.defaults, said_by(task), overrides())
        slots = sum(self.client.nthreads().values())
        name = fields.get("task_class") or task.task_key
        if (learned := self._learned_ms(name)) is not None:
            return chunked_map.size(len(items), learned, "learned", slots), None
        if (runtime := chunked_map.said_ms(fields)) is not None:
            return chunked_map.size(len(items), runtime, "said by the author", slots), None
        count = min(chunked_map.PROBE, len(items))
        why = chunked_map.Size(items=count, why="nothing is known of the class: run first and measured")
        (probe,) = self._send_chunks(task, [items[:count]], wait_for, depends, why.travels(len(items)))
        found = chunked_map.measured_ms(probe)
        if found is None:
            return chunked_map.Size(items=chunked_map.PROBE, why="the probe did not end in time"), probe
        _measured[name] = found
        return chunked_map.size(len(items) - count or 1, found, f"measured on {count}", slots), probe

    def _learned_ms(self, task_class: str) -> float | None:
        """Mean time of an item of a class, ms: as the governor told the extension, else as measured in this process."""
        if self._governed_mode() != "ungoverned":
            # `runtimes_ms`: task class → mean ms, in the reply of `orc_state`
            told = self.client.sync(self.client.scheduler.orc_state).get("runtimes_ms") or {}
            if task_class in told:
                return float(told[task_class])
        return _measured.get(task_class)

    def _send_chunks(
        self, task: Task[Any, Any], chunks: Sequence[Any], wait_for: Any, depends: Any, why: dict[str, Any]
    ) -> list[GovernedFuture]:
        if self._run is None:
            self._run = runs.current()
        known = self._chunked.get(id(task))
        if known is None:
            known = self._chunked[id(task)] = (task, chunked(task))
        whole = {"items": set().union(*depends.values())} if depends else None
        prepared = [
            self._factory.prepare(known[1], self._run, {"items": opaque(list(chunk))}, wait_for, whole)
            for chunk in chunks
        ]
        return self._send(task, prepared, why)

    def _send(
        self, task: Task[Any, Any], prepared: Sequence[Prepared], batched: dict[str, Any] | None = None
    ) -> list[GovernedFuture]:
        if not prepared:
            return []
        self._lend()
        calls = [
            (each.common.digest, each.call, [x.state if isinstance(x, StoredResult) else x for x in each.found])
            for each in prepared
        ]
        says = self._says(task, batched)
        with dask.annotate(**{p.ANNOTATION: says}):
            if len(prepared) == 1:
                futures = [self.client.submit(run_task, *calls[0], key=prepared[0].key, pure=False)]
            else:
                futures = self.client.map(
                    run_task, *zip(*calls, strict=True), key=[each.key for each in prepared], pure=False
                )
        made = [
            GovernedFuture(
                wrapped_future=future, task_run_id=each.born.id, prepared=each, results=self._results,
                ended=self._ended, resubmission=self._resubmission,
            )
            for future, each in zip(futures, prepared, strict=True)
        ]  # fmt: skip
        for future, each in zip(made, prepared, strict=True):
            self._resubmission.note(each, says, future)
        if says.get(p.MODE) == "govern":
            self._hold_reporter.start()
        return made

    def _why_held(self, keys: Sequence[str]) -> Mapping[str, tuple[str, str]]:
        told: Mapping[str, Any] = self.client.sync(self.client.scheduler.orc_state, keys=list(keys))["held"]
        return {key: (reason, text) for key, (reason, text) in told.items()}

    def _tell_held(self, key: str, text: str) -> None:
        if (prepared := self._resubmission.prepared(key)) is not None:
            self._factory.state(prepared.common, prepared.born, Pending(message=text))

    def _send_again(self, prepared: Prepared, found: Sequence[Any], says: Mapping[str, Any]) -> Any:
        with dask.annotate(**{p.ANNOTATION: says}):
            return self.client.submit(
                run_task, prepared.common.digest, prepared.call, list(found), key=prepared.key, pure=False
            )

    def _restore(self) -> None:
        for name, data in self._factory.shipped.items():
            self._put(name, data)

    def _can_take(self) -> bool:
        """Whether the scheduler at the address is there, and governed as the lost one was."""
        try:
            state = self.client.sync(self.client.scheduler.orc_state)
        except Exception:  # it is just starting
            return self._governed_mode() == "ungoverned" and self.client.status == "running"
        return state is not None or self._governed_mode() == "ungoverned"

    def _says(self, task: Task[Any, Any], batched: dict[str, Any] | None = None) -> dict[str, Any]:
        """The annotation: needs of the flow, the task and the call, and the run. One object for each distinct saying."""
        if self._governed_mode() == "ungoverned":
            return {p.MODE: "off"}
        assert self._run is not None
        over = overrides()
        quick = (id(task), id(over))
        if batched is None and (known := self._quick.get(quick)) is not None and known[0] is over:
            return known[1]
        fields = merged(self._run.defaults, said_by(task), over)
        fields.pop("deadline_ms", None)
        needs = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        body = {
            p.NEEDS: needs,
            p.RUN: self._run.travels(),
            p.NAME: task.name,
            "task_class": task.task_key,
            p.MODE: self._governed_mode(),
        }
        if batched is not None:
            # a chunk takes as long as its items together: a class of its own
            body |= {"task_class": task.task_key + p.CHUNKS, p.BATCH: batched}
        spec = runs.fingerprint(body)
        says = self._specs.setdefault(spec, {p.SPEC: spec, **body})
        if batched is None:
            self._quick[quick] = (over, says)
        return says

    def _ended(self, prepared: Prepared, state: Any) -> None:
        self._factory.state(prepared.common, prepared.born, state)

    def _put(self, name: str, data: bytes) -> None:
        self.client.set_metadata([PLACE, name], data)

    def __exit__(self, *arguments: Any) -> None:
        self._hold_reporter.stop()
        self._results.close()
        if self._run is not None and self._run.flow_run and self._client is not None:
            self._tell_lost_ends(self._run.flow_run)
        if self._client is not None and self._client.status == "running":
            for name in self._factory.shipped:
                self._client.set_metadata([PLACE, name], None)
        super().__exit__(*arguments)

    def _tell_lost_ends(self, flow_run: str) -> None:
        """A worker that is killed takes states along that it had not delivered. What the flow knows of them is told again.

        Asked for only where workers, or the scheduler, were lost, or where there were many. The server takes a state that
        it has already for the same.
        """
        try:
            if state_redelivery.many(self._factory.emitted) or self._lost_any():
                state_redelivery.tell_again(
                    flow_run, self._resubmission.ends, self._ended, current_queue(), self.logger
                )
        except Exception as error:  # neither may keep the flow run from its own end
            self.logger.warning("states that lost workers did not deliver are not told again: %s", error)

    def _lost_any(self) -> bool:
        """Whether a worker or the scheduler was lost while this runner ran."""
        if self._broken is None:
            return False
        return (
            bool(self._resubmission.recovered)
            or self.client.sync(self.client.scheduler.orc_state)["broken"] != self._broken
        )

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
        """off, ungoverned, shadow or govern, as the settings say and the scheduler allows."""
        if self._mode is None:
            wanted = "off" if "off" in (self._settings.mode, self.mode) else self.mode
            self._mode = "off" if wanted == "off" else self._ask()
            if wanted is not None and self._mode in ("shadow", "govern"):
                self._mode = wanted
        return self._mode

    def _ask(self) -> str:
        temporary = not self.address and (self._cluster is None)
        if temporary and self.client.cluster is not None and not self.adapt_kwargs:
            self._host()
        try:
            state = self.client.sync(self.client.scheduler.orc_state)
            if state is None:
                raise RuntimeError("it does not know orc_state")
        except Exception as error:
            return self._ungoverned(
                f"the Dask scheduler at {self.client.scheduler.address} has no ORC extension ({error})", temporary
            )
        self._broken = state.get("broken")
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
        return "ungoverned"


def _made(kind: type[GovernedTaskRunner], arguments: Mapping[str, Any]) -> GovernedTaskRunner:
    return kind(**arguments)


def _list(futures: Sequence[Any]) -> PrefectFutureList[Any]:
    made: PrefectFutureList[Any] = cast(Any, PrefectFutureList)(futures)
    return made
