"""A user's own cluster, without ORC installed: looked at, shadowed, governed. The distribution is the built wheel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import psutil
import pytest
import yaml

from agent.ledger.ledger import Ledger
from agent.ledger.verify import Report, verify
from agent.report.run import report
from harness.cluster import LOCAL
from harness.processes import ROOT, Processes, free_port
from harness.wait import until

pytestmark = pytest.mark.real

FLOW = """
from prefect import flow, task
from agent import GovernedTaskRunner, needs

@needs(interruptible=True, runtime="1s")
@task
def clean(day: int) -> int:
    return day + 1

@flow(task_runner=GovernedTaskRunner)
def nightly(days: list[int]) -> int:
    return sum(clean.map(days).result())

if __name__ == "__main__":
    print("sum", nightly(list(range(6))))
"""
STOCK = (
    FLOW.replace("from agent import GovernedTaskRunner, needs", "import os\nfrom prefect_dask import DaskTaskRunner")
    .replace("@flow(task_runner=GovernedTaskRunner)", "@flow(task_runner=DaskTaskRunner(address=os.environ['THEIRS']))")
    .replace('@needs(interruptible=True, runtime="1s")\n', "")
)


def environment(folder: Path) -> Path:
    """An empty environment that sees the lock's packages, but neither ORC nor this repository; its Python."""
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    # a plain path: the editable install's own .pth beside the packages is not read from here
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin/python"


class Theirs:
    """A scheduler and workers that know nothing of ORC, and a user who installs the wheel beside them."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder, self.processes = folder, processes
        self.bare, self.user = environment(folder / "theirs"), environment(folder / "user")
        self.home = folder / "work"
        self.home.mkdir()
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("ORC_", "PREFECT_", "PYTHON"))}
        self.env = {**clean, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "COLUMNS": "250"}
        port = free_port()
        self.scheduler = f"tcp://127.0.0.1:{port}"
        self._start("scheduler", "distributed.cli.dask_scheduler", "--port", str(port), *LOCAL)
        for name, more in (("cheap-spot-0", ()), ("cheap-spot-1", ()), ("big-0", ("--resources", "BIG=1"))):
            self._start(
                name,
                "distributed.cli.dask_worker",
                self.scheduler,
                "--name",
                name,
                "--nthreads",
                "1",
                "--no-nanny",
                *LOCAL,
                "--memory-limit",
                "1GiB",
                *more,
            )

    def _start(self, name: str, *arguments: str) -> None:
        self.processes.run(
            str(self.bare),
            "-m",
            *arguments,
            name=f"theirs-{name}",
            env={"PYTHONPATH": "", **self.prefect()},
            cwd=self.folder,
        )

    def prefect(self) -> dict[str, str]:
        return {
            "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
            "PREFECT_LOCAL_STORAGE_PATH": str(self.folder / "results"),
        }

    def run(self, *command: str, rc: int | None = 0, seconds: float = 180, **env: str) -> str:
        done = subprocess.run(
            [str(self.user), *command],
            cwd=self.home,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert rc is None or done.returncode == rc, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def orc(self, *arguments: str, **kwargs) -> str:
        return self.run("-m", "agent.cli.main", *arguments, **kwargs)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "-w",
            folder,
            ROOT,
        ],
        check=True,
    )
    return next(folder.glob("orc_agent-*.whl"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, module_processes, wheel):
    made = Theirs(tmp_path_factory.mktemp("theirs"), module_processes)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(made.user),
            "install",
            "-q",
            "--no-deps",
            "--no-index",
            "--disable-pip-version-check",
            str(wheel),
        ],
        check=True,
    )
    yield made
    made.orc("down", rc=None)


def reached(theirs):
    for line in theirs.orc("env").splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        if name != "PYTHONPATH":
            theirs.env[name] = value.strip("'")


def test_the_wheel_brings_agent_and_rules_and_no_flows(theirs):
    said = theirs.run(
        "-c",
        "import agent, rules, importlib.util as u, pathlib; print(agent.__file__, u.find_spec('flows'), "
        "len(list(pathlib.Path(rules.__file__).parent.glob('*.yaml'))))",
    )
    where, flows, files = said.split()
    assert (str(theirs.folder) in where, flows, int(files) >= 1) == (True, "None", True)


def test_init_proposes_pools_that_tell_the_workers_apart_and_says_what_it_cannot_know(theirs):
    def all_are_there():
        """Three workers have joined."""
        theirs.orc("init", "--scheduler", theirs.scheduler, "--out", "try.yaml", "--force", rc=None)
        made = theirs.home / "try.yaml"
        pools = (yaml.safe_load(made.read_text()) or {}).get("pools") if made.exists() else {}
        return sum(pool["workers"]["max"] for pool in (pools or {}).values()) == 3

    until(all_are_there, 60, 1)
    said = theirs.orc("init", "--scheduler", theirs.scheduler, "--price", "cheap-spot=0.1", "--price", "big=0.4")
    assert "not known: what a worker costs" in said
    pools = yaml.safe_load((theirs.home / "pools.yaml").read_text())["pools"]
    assert {name: (pool["market"], pool["price"], pool["workers"]["max"]) for name, pool in pools.items()} == {
        "cheap-spot": ("spot", 0.1, 2),
        "big": ("on-demand", 0.4, 1),
    }
    assert pools["big"]["selector"] == {"resources": {"BIG": 1}}
    assert "is there already" in theirs.orc("init", "--scheduler", theirs.scheduler, rc=2)
    assert "--price gpu" in theirs.orc(
        "init", "--scheduler", theirs.scheduler, "--out", "x.yaml", "--price", "gpu=1", rc=2
    )
    assert "cannot be reached" in theirs.orc(
        "init", "--scheduler", f"tcp://127.0.0.1:{free_port()}", "--out", "x.yaml", rc=2
    )
    assert not (theirs.home / "x.yaml").exists()
    (theirs.home / "open.yaml").write_text((theirs.home / "pools.yaml").read_text().replace("price: 0.4", "price: # ?"))
    assert "price is missing" in theirs.orc("pools", rc=2, ORC_POOLS="open.yaml")


def test_doctor_says_what_is_missing_and_what_to_do(theirs):
    said = theirs.orc(
        "doctor", "--scheduler", theirs.scheduler, "--import", "no_such_module", rc=1, ORC_POOLS="pools.yaml"
    )
    assert "no ORC extension" in said
    assert "cannot import no_such_module" in said
    assert "orc up --scheduler" in said


def test_shadow_first_and_their_flows_run_exactly_as_before_then_govern(theirs):
    before = workers(theirs)
    (theirs.home / "flow.py").write_text(FLOW)
    (theirs.home / "stock.py").write_text(STOCK)
    theirs.orc("up", "--scheduler", theirs.scheduler, ORC_POOLS="pools.yaml", ORC_MODE="shadow", **theirs.prefect())
    reached(theirs)
    assert "sum 21" in theirs.run("stock.py", THEIRS=theirs.scheduler)
    assert "sum 21" in theirs.run("flow.py", ORC_MODE="shadow")
    ledger = Ledger(f"sqlite:///{theirs.home}/.orc/ledger.db", theirs.scheduler)
    until(lambda: not ledger.open_placements(), 30, 0.3)
    rounds = [r for r in ledger.records(limit=10_000) if r.kind == "round" and "plan" in r.body]
    assert {r.mode for r in rounds} == {"shadow"}
    assert sum(len(ledger.placements_of(r.seq)) for r in rounds) >= 12  # stock tasks and governed ones alike
    said = theirs.orc("shadow", "report", "--since", "1h")
    assert "as ORC would have placed it (modelled)" in said
    theirs.orc("down")
    theirs.orc("up", "--scheduler", theirs.scheduler, ORC_POOLS="pools.yaml", ORC_MODE="govern", **theirs.prefect())
    reached(theirs)
    assert "sum 21" in theirs.run("flow.py")
    until(lambda: not ledger.open_placements(), 30, 0.3)
    run = [r for r in ledger.runs() if r.flow == "nightly"][-1]
    made = report(ledger, run.flow_run, 0)
    assert sum(row.tasks for row in made.rows if row.name == "clean") == 6
    assert {row.pool for row in made.rows} <= {"cheap-spot", "big"}
    assert [f"{f.seq}: {f.what}" for f in verify(ledger, Report(), replay=True)] == []
    assert workers(theirs) == before  # nobody was restarted
    assert "governed in epoch" in theirs.orc("doctor", rc=None)
    theirs.orc("down")


def workers(theirs):
    """Process ids of their workers."""
    found = []
    for process in psutil.process_iter():
        try:
            if "distributed.cli.dask_worker" in process.cmdline() and theirs.scheduler in process.cmdline():
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return sorted(found)


def test_a_temporary_cluster_is_governed_from_the_flows_own_process(theirs):
    (theirs.home / "temporary.py").write_text(
        FLOW.replace("from agent", "from distributed import LocalCluster\nfrom agent").replace(
            "task_runner=GovernedTaskRunner",
            "task_runner=GovernedTaskRunner(cluster_class=LocalCluster, "
            "cluster_kwargs={'n_workers': 2, 'threads_per_worker': 1, 'dashboard_address': None})",
        )
    )
    theirs.orc("up", **theirs.prefect())  # for its Prefect server
    reached(theirs)
    env = {k: v for k, v in theirs.env.items() if k not in ("ORC_SCHEDULER", "ORC_CHAIN")}
    theirs.env = env
    for _ in range(2):
        assert "sum 21" in theirs.run("temporary.py", ORC_HOME=str(theirs.home / "own"))
    ledger = Ledger(f"sqlite:///{theirs.home}/own/ledger.db", "temporary")
    assert ledger.open_placements() == []
    assert sum(1 for execution in ledger.executions() if execution.ended.result == "done") == 12
    assert [f"{f.seq}: {f.what}" for f in verify(ledger, Report(), replay=True)] == []
    theirs.orc("down")
    assert json.loads((theirs.home / ".orc/services.last.json").read_text())["theirs"] == {}
