"""Settings: where they come from, which are refused, and what of them is shown."""

from __future__ import annotations

import os
from functools import reduce

import pytest

from agent.errors import SettingError
from agent.ledger.ledger import Ledger
from agent.model.addresses import without_secrets
from agent.processes import trust
from agent.services.doctor.gather import ledger, settings_and_rights
from agent.settings import Settings, load
from harness.processes import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of its own to stand in, and an environment that says nothing."""
    for name in [name for name in os.environ if name.startswith("ORC_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_says_each_setting_and_its_default():
    lines = [line for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line and "ORC_" in line]
    said = dict(line.removeprefix("# ").split("=", 1) for line in lines if line.startswith("# ORC_"))
    assert list(said) == [variable for variable, _, _ in Settings.variables()]
    assert len(set(said)) == len(said)
    for variable, place, _ in Settings.variables():
        default = reduce(getattr, place, Settings())
        if value := said[variable]:
            made = Settings(**reduce(lambda inner, name: {name: inner}, reversed(place), value))
            assert reduce(getattr, place, made) == default, variable
        else:
            assert str(default or "") in ("", "**********"), variable


def test_each_setting_is_taken_from_its_variable_whatever_its_case(monkeypatch):
    for variable, value in (
        ("ORC_MODE", "shadow"), ("ORC_PRICES", "p.yaml"), ("ORC_PRICES_EVERY", "1 min"), ("orc_aws_endpoint_url", "http://a"),
        ("ORC_GRAPH_URL", "off"), ("ORC_GRAPH_PASSWORD", "p"), ("ORC_PREFECT_PORT", "1"),
        ("ORC_PREFECT_DATABASE_URL", "d"), ("ORC_WORK_POOL", "w"), ("ORC_MAX_LOSSES", "7"),
        ("ORC_SCHEDULER", "tcp://s:1"), ("ORC_SCHEDULER_PORT", "2"), ("ORC_UNKNOWN", "x"),
    ):  # fmt: skip
        monkeypatch.setenv(variable, value)
    made = load()
    assert (made.mode, str(made.prices.file), made.prices.every) == ("shadow", "p.yaml", "1 min")
    assert (
        made.prices.aws_endpoint_url, made.graph.url, made.graph.password.get_secret_value()
    ) == ("http://a", "off", "p")  # fmt: skip
    assert (
        made.ports.prefect, made.ports.scheduler, made.prefect.database_url, made.prefect.work_pool
    ) == (1, 2, "d", "w")  # fmt: skip
    assert (made.planning.max_losses, made.scheduler) == (7, "tcp://s:1")
    monkeypatch.setenv("ORC_GRAPH_HEAP", "lots")
    monkeypatch.setenv("ORC_PREFECT_PORT", "70000")
    with pytest.raises(SettingError, match=r"ORC_GRAPH_HEAP='lots': .*no Java heap[^\n]*\nORC_PREFECT_PORT='70000': "):
        load()


def test_the_environment_wins_over_the_file_and_what_the_file_said_is_told(folder, monkeypatch):
    (folder / ".env").write_text("ORC_MODE=shadow\nORC_AGING=3min\nOTHER=1\n")
    monkeypatch.setenv("ORC_AGING", "4min")
    settings = load()
    assert (settings.mode, settings.planning.aging) == ("shadow", "4min")
    assert settings.by_file() == ".env says ORC_MODE"
    assert "ORC_MODE" in settings_and_rights(settings)[0].says
    monkeypatch.setenv("ORC_ENV_FILE", "")
    assert (load().mode, load().by_file()) == ("govern", "")


@pytest.mark.parametrize(
    ("mode", "owner", "says"),
    [
        (0o646, None, "everybody can change"),
        (0o664, (0, 4242), "a group can change"),
        (0o600, (4242, 0), "belongs to user 4242"),
    ],
)
def test_a_strangers_file_is_not_obeyed_unless_it_is_named(folder, monkeypatch, mode, owner, says):
    if owner is not None and os.geteuid() != 0:
        pytest.skip("only root gives files away")
    file = folder / ".env"
    file.write_text("ORC_MODE=shadow\n")
    if owner is not None:
        os.chown(file, *owner)
    file.chmod(mode)
    with pytest.raises(SettingError, match=rf"{says}.*\.env.*not obeyed.*ORC_ENV_FILE|\.env {says}.*ORC_ENV_FILE"):
        load()
    monkeypatch.setenv("ORC_ENV_FILE", str(file))
    assert load().mode == "shadow"


@pytest.mark.parametrize(("name", "path"), [("HOME", ".orc"), ("RULES", "rules")])
def test_a_strangers_ledger_and_rules_are_not_taken_because_one_stands_beside_them(folder, monkeypatch, name, path):
    (folder / path).mkdir()
    (folder / path).chmod(0o777)
    with pytest.raises(SettingError, match=rf"everybody can change {path}.*ORC_{name}={path}"):
        load()
    monkeypatch.setenv(f"ORC_{name}", path)
    load()
    monkeypatch.delenv(f"ORC_{name}")
    (folder / path).chmod(0o755)
    load()
    # a folder of one's own with a file in it that others can change
    file = folder / path / ("ledger.db" if name == "HOME" else "mine.yaml")
    file.write_text("rules: []\n")
    file.chmod(0o666)
    with pytest.raises(SettingError, match=rf"everybody can change {path}/{file.name}.*ORC_{name}={path}"):
        load()


def test_a_file_in_a_shared_folder_of_ones_own_group_is_ones_own(folder):
    (folder / ".env").touch()
    (folder / ".env").chmod(0o664)
    assert trust.stranger(folder / ".env") == ""


def test_a_wrong_setting_says_which_file_it_is_of_and_keeps_its_secrets(folder, monkeypatch):
    (folder / ".env").write_text("ORC_GRAPH_URL=http://neo:hunter2@there/?token=abc\n")
    monkeypatch.setenv("ORC_MODE", "maybe")
    with pytest.raises(SettingError) as error:
        load()
    said = str(error.value)
    assert "ORC_GRAPH_URL='http://neo:***@there/?…' (.env): " in said
    assert "ORC_MODE='maybe': " in said
    assert "hunter2" not in said
    assert "abc" not in said


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@h:5/db", "postgresql://u:***@h:5/db"),
        ("postgresql://u:p?w@d@h/db?sslmode=x", "postgresql://u:***@h/db?…"),
        ("postgresql://h/db?user=u&password=x", "postgresql://h/db?…"),
        ("postgresql://h/db?password=x@y", "postgresql://h:***@y"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("bolt://u@h", "bolt://u@h"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://u:hunter2@127.0.0.1:1/db",
        "postgresql+psycopg://127.0.0.1:1/db?user=u&password=hunter2",
        "nothing://u:hunter2@h/db",
    ],
)
def test_no_error_of_the_ledger_shows_its_password(url, monkeypatch):
    with pytest.raises(Exception) as error:
        Ledger(url, "local")
    assert "hunter2" not in str(error.value)
    monkeypatch.setenv("ORC_LEDGER_URL", url)
    assert "hunter2" not in ledger(load()).says


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "example.org", ""])
def test_a_host_that_others_can_reach_is_refused_unless_it_is_asked_for_by_name(monkeypatch, host):
    monkeypatch.setenv("ORC_HOST", host)
    with pytest.raises(
        SettingError, match=rf"ORC_HOST='{host}': .*no TLS yet.*runs code as you.*ORC_ALLOW_OPEN_HOST=true"
    ):
        load()
    monkeypatch.setenv("ORC_ALLOW_OPEN_HOST", "true")
    assert load().host == host
    assert host in next(f for f in settings_and_rights(load()) if f.what == "host").says


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "localhost", "::1"])
def test_this_machines_own_addresses_need_no_word(monkeypatch, host):
    monkeypatch.setenv("ORC_HOST", host)
    assert load().host == host


def test_doctor_before_the_first_up_finds_nothing_wrong_and_begins_nothing(folder):
    settings = load()
    found = [ledger(settings), *settings_and_rights(settings)]
    assert {finding.level for finding in found} == {"good"}
    assert "there is none yet" in found[0].says
    assert list(folder.iterdir()) == []


def test_doctor_says_what_others_may_read(folder):
    (folder / ".orc").mkdir(mode=0o755)
    (folder / ".orc/ledger.db").touch(mode=0o644)
    finding = settings_and_rights(load())[-1]
    assert (finding.level, finding.what) == ("wrong", "rights")
    assert "ledger.db" in finding.says
    assert "chmod" in finding.do
