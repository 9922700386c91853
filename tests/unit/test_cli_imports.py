"""What a command loads: the heavy libraries only where it works with them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agent.cli.simulate import POLICY_NAMES
from bench.cli import COMMANDS
from bench.cli_stage import HOLD, Stage, stage

#: what no command of these may load
HEAVY = {
    "arcadedb_embedded",
    "bokeh",
    "boto3",
    "dask",
    "distributed",
    "durable",
    "fastapi",
    "httpx",
    "matplotlib",
    "neo4j",
    "numpy",
    "pandas",
    "prefect",
    "prefect_dask",
    "prometheus_client",
    "pyarrow",
    "scipy",
    "tornado",
    "xgboost",
}
#: what `orc` by itself, and its help, may not load either
WORKING = HEAVY | {"psutil", "pydantic", "pydantic_settings", "rich", "sqlalchemy", "yaml"}

_POOLS = """
pools:
  spot: {market: spot, worker: {cpus: 1, memory: 4 GiB}, price: 0.36, workers: {max: 4}, provider: local}
"""
_RUN = """
import json, sys
from agent.cli.main import main
sys.argv = ["orc", *sys.argv[1:]]
code = 0
if len(sys.argv) > 1:
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
print("\\n" + json.dumps({"code": code, "roots": sorted({name.split(".")[0] for name in sys.modules})}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Stage:
    with stage(tmp_path_factory.mktemp("home")) as made:
        (made.home / "deployments").mkdir()
        (made.home / "deployments" / "pools.yaml").write_text(_POOLS)
        yield made


def loaded(at: Stage, *command: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *command], env=at.env, cwd=at.home, capture_output=True, text=True, check=False
    )
    said = json.loads(done.stdout.splitlines()[-1]) if done.stdout else None
    assert said is not None, done.stderr
    assert said["code"] == 0, done.stdout + done.stderr
    return set(said["roots"])


def test_the_command_line_by_itself_loads_nothing_heavy(home):
    assert loaded(home) & WORKING == set()
    assert loaded(home, "--help") & WORKING == set()


@pytest.mark.parametrize(
    "command",
    [
        *(command for command in COMMANDS if command != ("--help",)),
        ("reject", HOLD, "--by", "me"),
        ("override", "clean", "--pool", "spot", "--by", "me"),
        ("pools",),
    ],
    ids=" ".join,
)
def test_a_command_loads_nothing_that_it_does_not_work_with(home, command):
    assert loaded(home, *command) & HEAVY == set()


def test_help_names_the_policies_that_there_are():
    from agent.simulate.what_if import POLICIES

    assert list(POLICY_NAMES) == list(POLICIES)
