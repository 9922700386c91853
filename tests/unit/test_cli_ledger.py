"""Which records a command reads, and what a verification says where there is nothing to verify."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from agent.cli.context import open_ledger
from agent.cli.main import app
from agent.errors import ServiceError
from agent.ledger import schema as t
from agent.ledger.chains import Chain, chains
from agent.ledger.ledger import Ledger
from agent.settings import Settings
from bench.cli_stage import RUN, fill


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("ORC_CHAIN", "ORC_SCHEDULER", "ORC_LEDGER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORC_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def orc(*arguments):
    """Exit code, what is printed, and the error of ORC that `orc` would print."""
    done = CliRunner().invoke(app, list(arguments))
    error = done.exception if not isinstance(done.exception, SystemExit) else None
    assert error is None or isinstance(error, ServiceError), error
    return (2 if error else done.exit_code), done.output, str(error or "")


def test_a_verification_verifies_every_chain_and_says_which(home):
    fill(home, ["a"], "tcp://first:8786", decisions=3)
    fill(home, ["b"], "local", decisions=2)
    code, out, _ = orc("ledger", "verify")
    assert code == 0
    assert "local: 2 records, 0 faults" in out
    assert "tcp://first:8786: 3 records, 0 faults" in out


def test_a_fault_in_any_chain_is_told_with_its_chain(home):
    fill(home, ["a"], "first", decisions=3)
    fill(home, ["b"], "second", decisions=2)
    ledger = Ledger(f"sqlite:///{home}/ledger.db", "first")
    with ledger.database.writing() as db:
        db.execute(update(t.record).where(t.record.c.chain == ledger.chain, t.record.c.seq == 2).values(at_ms=0))
    ledger.close()
    code, out, _ = orc("ledger", "verify")
    assert code == 1
    assert "first: record 2: the record was changed" in out
    assert "second: 2 records, 0 faults" in out


def test_a_verification_of_one_chain_is_of_that_one(home, monkeypatch):
    fill(home, ["a"], "first", decisions=3)
    fill(home, ["b"], "second", decisions=2)
    monkeypatch.setenv("ORC_CHAIN", "second")
    code, out, _ = orc("ledger", "verify")
    assert (code, out.split()[-5:]) == (0, ["second:", "2", "records,", "0", "faults"])
    assert "first:" not in out
    # which ledger that is: a file of settings in the folder one stands in may say another
    assert f"sqlite:///{home}/ledger.db" in out.replace("\n", "")


def test_a_verification_of_nothing_is_an_error_and_names_what_there_is(home, monkeypatch):
    assert "no ledger" in orc("ledger", "verify")[2]
    assert not (home / "ledger.db").exists()
    Ledger(f"sqlite:///{home}/ledger.db", "local").close()  # opened, and nothing written
    code, _, error = orc("ledger", "verify")
    assert (code, "no record yet" in error) == (2, True)
    fill(home, ["a"], "first", decisions=1)
    monkeypatch.setenv("ORC_CHAIN", "forst")
    code, _, error = orc("ledger", "verify")
    assert code == 2
    assert "no record of scheduler 'forst'; it has those of first" in error
    assert [chain.name for chain in chains(f"sqlite:///{home}/ledger.db")] == ["first", "local"]  # none was begun


def test_other_commands_read_the_only_chain_there_is(home):
    fill(home, ["a"], "tcp://cluster:8786", decisions=2)
    for command in (("decisions",), ("explain", RUN), ("report", RUN)):
        code, out, error = orc(*command)
        assert (code, error) == (0, "")
        assert "spot for a" in out


def test_where_several_may_be_meant_they_are_named(home, monkeypatch):
    fill(home, ["a"], "first", decisions=2)
    fill(home, ["b"], "second", decisions=2)
    code, _, error = orc("decisions")
    assert code == 2
    assert "first, second; say which with ORC_CHAIN=NAME" in error
    monkeypatch.setenv("ORC_CHAIN", "second")
    assert "spot for b" in orc("decisions")[1]


def test_a_ledger_elsewhere_is_named_by_its_setting(home):
    with pytest.raises(ServiceError, match="no ledger in ORC_LEDGER_URL"):
        open_ledger(Settings(home=home, ledger_url=f"sqlite:///{home}/other.db"))
    assert not (home / "other.db").exists()


def test_chains_are_listed_with_their_records(home):
    url = f"sqlite:///{home}/ledger.db"
    assert chains(url) == ()
    fill(home, ["a"], "first", decisions=2)
    assert chains(url) == (Chain(name="first", records=2),)
