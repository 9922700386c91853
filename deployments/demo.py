"""The main job from nothing: start what is needed, run the deployment, show what was decided and what it cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from uuid import UUID

from agent.cli.runs import show_report
from agent.cli.terminal import console, say
from agent.errors import OrcError, ServiceError
from agent.ledger.history import declared_pools
from agent.ledger.ledger import Ledger
from agent.model.units import show_ms
from agent.processes.family import INSTANCE
from agent.report.run import RunReport, report
from agent.services import control, environment
from agent.services import state as states
from agent.settings import Settings, load
from deployments.pace import DEADLINE as SHORTEST
from deployments.pace import deadline_seconds, slowness
from rules.schema import RuleError

#: tag of a flow run that says its deadline; see `agent.runner.flow_run`, which is not imported for the sake of a word
DEADLINE = "deadline:"
DEPLOYMENT = "pipeline/nycflights"


def main() -> int:
    """0 when the run completed."""
    settings, begin = load(), time.monotonic()
    state = _up(settings)
    variables = environment.environment(settings, state)
    del variables[INSTANCE]
    os.environ.update(variables)
    times = slowness()
    seconds = deadline_seconds(times)
    say("", f"prefect deployment run {DEPLOYMENT}, deadline {show_ms(seconds * 1000)}")
    if seconds > SHORTEST:
        say(f"  this machine is {times:.1f} times as slow just now as the one that takes {show_ms(SHORTEST * 1000)}")
    flow_run = start(seconds)
    ended = _watch(settings, flow_run)
    ledger = Ledger(settings.ledger(), "local")
    made = _settled(ledger, flow_run)
    if made is not None:
        say()
        show_report(made, any(pool.emulated for pool in declared_pools(ledger).values()))
    _result(flow_run)
    host, ports = settings.host, state.ports
    say("", f"Prefect UI      http://{host}:{ports['prefect']}/runs/flow-run/{flow_run}")
    if (auth := environment.prefect_auth(settings)) is not None:
        say(f"  log in with   {auth}")
    say(f"Dask dashboard  http://{host}:{ports['dashboard']}/status")
    say("again: make demo    look: .venv/bin/orc status, .venv/bin/orc explain RUN    end: make down")
    say(f"{ended} in {time.monotonic() - begin:.0f} s")
    return 0 if ended == "Completed" else 1


def _up(settings: Settings) -> states.State:
    old = states.read(settings)
    if old is not None and old.alive() and old.ready:
        say(f"ORC is up since its process {old.pid}; using it")
        return old
    return control.up(settings, lambda text: say(f"  {text}"))


def start(deadline_seconds: int) -> str:
    """Run the deployment with that deadline; the flow run's id. Raises ServiceError."""
    tag = f"{DEADLINE}{deadline_seconds} s"
    out = subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "run", DEPLOYMENT, "--tag", tag],
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line.split("UUID:")[1].strip() for line in out.stdout.splitlines() if "UUID:" in line]
    if out.returncode or not found:
        raise ServiceError(f"the deployment could not be run: {(out.stderr or out.stdout).strip()}")
    return found[0]


def _watch(settings: Settings, flow_run: str) -> str:
    """Follow the run: its task runs by state, and what the governor does."""
    from prefect.client.orchestration import get_client

    shown = ""
    ledger = Ledger(settings.ledger(), "local")
    begin = time.monotonic()
    with get_client(sync_client=True) as client:
        while True:
            run = client.read_flow_run(UUID(flow_run))
            line = _progress(ledger, flow_run)
            if run.state is not None and run.state.is_final():
                say(f"  {time.monotonic() - begin:4.0f} s  {run.state.name}: {line}")
                return run.state.name or ""
            if line != shown:
                shown = line
                name = run.state.name if run.state is not None else "Pending"
                say(f"  {time.monotonic() - begin:4.0f} s  {name}: {line or 'the flow is starting'}")
            time.sleep(1)


def _progress(ledger: Ledger, flow_run: str) -> str:
    made = report(ledger, flow_run, round(time.time() * 1000))
    if made is None:
        return ""
    done = sum(len(row.real_ms) for row in made.rows)
    pools = ", ".join(sorted({row.pool for row in made.rows}))
    moved = f", {len(made.moves)} taken away and moved" if made.moves else ""
    return f"{done} tasks done on {pools}{moved}"


def _settled(ledger: Ledger, flow_run: str) -> RunReport | None:
    """The report, once the last outcome is on record."""
    for _ in range(20):
        made = report(ledger, flow_run, round(time.time() * 1000))
        if made is None or all(len(row.real_ms) >= row.tasks for row in made.rows):
            break
        time.sleep(0.25)
    return made


def _result(flow_run: str) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
    from rich.markdown import Markdown

    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(
            flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(flow_run)]), type=ArtifactFilterType(any_=["markdown"])
        )
        for artifact in client.read_artifacts(artifact_filter=wanted):
            if artifact.description == "What the pipeline made":
                console().print(Markdown(str(artifact.data)))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OrcError, RuleError) as error:
        print(f"orc: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped; `make down` ends the services, `make demo` goes on with them", file=sys.stderr)
        sys.exit(130)
