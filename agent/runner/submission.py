"""Task runs on their way to Dask: made, told, sent in one message, and sent again where the scheduler was lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from typing import Any

import dask
import distributed
from prefect.states import Crashed, Pending
from prefect.tasks import Task
from prefect.utilities.annotations import opaque
from prefect_dask.client import PrefectDaskClient

from agent.runner import flow_run
from agent.runner.annotations import Annotations
from agent.runner.futures import GovernedFuture
from agent.runner.hold_reporter import HoldReporter
from agent.runner.mode import Governance, say_once
from agent.runner.resubmission import Resubmission
from agent.runner.results import Results
from agent.runner.task_runs import PreparedTaskRun, TaskRunFactory
from agent.scheduler import protocol
from agent.worker.chunks import all_of, chunked
from agent.worker.payload import PLACE, StoredResult
from agent.worker.run_context import RunInfo
from agent.worker.task_body import run_task


class Submission:
    """Of one task runner.

    Args:
        client: the runner's, connected when it is asked for.
        resubmit, resubmit_within: as the runner was told.
    """

    def __init__(
        self,
        client: Callable[[], PrefectDaskClient],
        governance: Governance,
        resubmit: bool | None,
        resubmit_within: float,
    ) -> None:
        self._client, self._governance = client, governance
        self._run: RunInfo | None = None
        self.factory = TaskRunFactory(self._put)
        self._annotations = Annotations()
        self._results = Results()
        self.resubmission = Resubmission(
            within_seconds=resubmit_within,
            always=resubmit,
            ready=governance.can_take,
            restore=self._restore,
            send=self._send_again,
        )
        self._hold_reporter = HoldReporter(self.resubmission.waiting, governance.why_held, self._report_hold)
        self._chunked: dict[int, tuple[Task[Any, Any], Task[Any, Any]]] = {}
        self._seceded = False

    @property
    def run(self) -> RunInfo:
        """The present flow run."""
        if self._run is None:
            self._run = flow_run.current()
        return self._run

    @property
    def begun_run(self) -> str:
        """Id of the flow run that tasks were sent for; "" where there was none."""
        return self._run.flow_run if self._run is not None else ""

    def send(
        self, task: Task[Any, Any], prepared: Sequence[PreparedTaskRun], batched: Mapping[str, Any] | None = None
    ) -> list[GovernedFuture]:
        """To Dask, once all of them could be made: until here nobody was told of them."""
        if not prepared:
            return []
        self._lend()
        annotation = self._annotations.of(task, self.run, self._governance.mode, batched)
        if annotation.get(protocol.MODE) == "govern":
            _advise_persistence(annotation, prepared[0].common.persisted)
            self._hold_reporter.start()
        self.factory.credentials.listen(self._client())
        told = [self.factory.announce(each) for each in prepared]
        try:
            futures = self._to_dask(told, annotation)
        except Exception as error:  # whatever Dask raises where it cannot take them
            for each in told:
                self.factory.emit_state(each, Crashed(message=f"it could not be sent to Dask: {error}"))
            raise
        made = [
            GovernedFuture(
                wrapped_future=future,
                prepared=each,
                results=self._results,
                ended=self.factory.emit_state,
                resubmission=self.resubmission,
            )
            for future, each in zip(futures, told, strict=True)
        ]
        # a priority, say, that is said around the submit
        all_said = {**dask.get_annotations(), protocol.ANNOTATION: annotation}
        for future, each in zip(made, told, strict=True):
            self.resubmission.note(each, all_said, future)
        return made

    def _to_dask(self, told: Sequence[PreparedTaskRun], annotation: Mapping[str, Any]) -> Sequence[Any]:
        calls = [
            (
                each.common.name,
                each.code,
                each.call,
                [x.state if isinstance(x, StoredResult) else x for x in each.found],
            )
            for each in told
        ]
        with dask.annotate(**{protocol.ANNOTATION: annotation}):
            if len(calls) == 1:
                return [self._client().submit(run_task, *calls[0], key=told[0].key, pure=False)]
            sent: Sequence[Any] = self._client().map(
                run_task, *zip(*calls, strict=True), key=[each.key for each in told], pure=False
            )
            return sent

    def send_chunks(
        self, task: Task[Any, Any], chunks: Sequence[Any], wait_for: Any, depends: Any, why: dict[str, Any]
    ) -> list[GovernedFuture]:
        """Each chunk of a task's items as one task run."""
        if (known := self._chunked.get(id(task))) is None:
            known = self._chunked[id(task)] = (task, chunked(task))
        else:
            # what the task's function uses may have changed since
            known[1].fn = all_of(task)
        whole = {"items": set().union(*depends.values())} if depends else None
        code = self.factory.code(known[1])
        prepared = [
            self.factory.prepare(known[1], self.run, {"items": opaque(list(chunk))}, wait_for, whole, code)
            for chunk in chunks
        ]
        return self.send(task, prepared, why)

    def end(self) -> None:
        """Nothing more is asked for."""
        self.factory.credentials.end()
        self._hold_reporter.stop()
        self._results.close()

    def withdraw(self) -> None:
        """Take out of the scheduler what was put there."""
        for name in self.factory.shipped:
            self._client().set_metadata([PLACE, name], None)

    def _send_again(self, prepared: PreparedTaskRun, found: Sequence[Any], annotations: Mapping[str, Any]) -> Any:
        call = prepared.common.name, prepared.code, prepared.call, list(found)

        def submit() -> Any:
            with dask.annotate(**annotations):
                return self._client().submit(run_task, *call, key=prepared.key, pure=False)

        # in an empty context: what is said around the wait, or around another submit, is not said of this task
        return Context().run(submit)

    def _report_hold(self, key: str, text: str) -> None:
        if (prepared := self.resubmission.prepared(key)) is not None:
            self.factory.emit_state(prepared, Pending(message=text))

    def _restore(self) -> None:
        self.factory.credentials.listen(self._client(), anew=True)
        for name, data in self.factory.shipped.items():
            self._put(name, data)

    def _put(self, name: str, data: bytes) -> None:
        self._client().set_metadata([PLACE, name], data)

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


def _advise_persistence(annotation: Mapping[str, Any], persisted: bool) -> None:
    """What may be interrupted, and is not stored, runs again with its worker: to be said before it does."""
    if persisted or not annotation[protocol.NEEDS].get("interruptible"):
        return
    say_once(
        f"flow {annotation[protocol.RUN]['flow']!r} has interruptible tasks and does not keep their results: "
        "what has ended runs again when a spot worker is taken. Write @flow(persist_result=True), or set "
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT=true"
    )
