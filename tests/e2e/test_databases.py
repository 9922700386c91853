"""ORC's ledger and Prefect's server on a real PostgreSQL; the ledger's database is away under a running flow."""

from __future__ import annotations

import pytest

from agent.ledger.ledger import Ledger
from agent.ledger.verify import Report, verify
from harness.wait import until
from tests.e2e.orc import Orc
from tests.e2e.test_plugs import started

pytestmark = pytest.mark.real


@pytest.fixture
def ours(tmp_path_factory):
    """An ORC with settings of its own, ended at the end."""
    made = []

    def up(name, **env):
        orc = Orc(tmp_path_factory.mktemp(name))
        orc.env.update(env)
        made.append(orc)
        orc.up()
        return orc

    yield up
    for orc in made:
        orc.cli("down", rc=None)
        assert orc.left() == []


def test_the_ledgers_database_away_under_a_running_flow_loses_nothing(postgres, ours, tmp_path):
    url = postgres.database("ledger_of_a_flow")
    orc = ours("away", ORC_LEDGER_URL=url)
    process = orc.flow("many", folder=str(tmp_path), count=10, seconds=1.5)
    until(lambda: len(started(tmp_path)) >= 2, 60)
    postgres.stop()
    try:
        # what runs ends, what waits is bound, out of the spool
        until(lambda: orc.governor("/status")["spooled"] > 0, 30)
        before = len(started(tmp_path))
        until(lambda: len(started(tmp_path)) > before, 30)
    finally:
        postgres.start()
    assert orc.result(process) == sum(range(10))
    until(lambda: orc.governor("/status")["spooled"] == 0, 30)
    ledger = Ledger(url, "local")
    until(lambda: not ledger.open_placements(), 30, 0.3)
    assert [f"{f.seq}: {f.what}" for f in verify(ledger, Report(), replay=True)] == []
    assert set(started(tmp_path).values()) == {1}  # nothing ran twice
    assert sum(1 for execution in ledger.executions() if execution.ended.result == "done") >= 11
    ledger.close()


def test_prefects_server_and_the_ledger_on_postgresql_by_one_setting_each(postgres, ours, tmp_path):
    prefect = postgres.database("prefect").replace("postgresql+psycopg", "postgresql+asyncpg")
    orc = ours(
        "prefect-pg", ORC_LEDGER_URL=postgres.database("ledger_beside_prefect"), ORC_PREFECT_DATABASE_URL=prefect
    )
    assert orc.run("many", folder=str(tmp_path), count=3, seconds=0.1) == 3
    import psycopg

    with psycopg.connect(prefect.replace("+asyncpg", "")) as db:
        states = {row[0] for row in db.execute("SELECT state_name FROM flow_run").fetchall()}
    assert states == {"Completed"}
    assert orc.flow_runs("many")[0]["state_name"] == "Completed"
