"""Who may come in: what `orc up` listens on, what its Prefect server asks for, whose files it reads."""

from __future__ import annotations

import ipaddress
import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from agent.processes.family import command_of, family
from agent.services.doctor.gather import prefect
from harness import prefect_api
from harness.processes import ROOT
from harness.wait import until
from tests.e2e.orc import Orc

pytestmark = pytest.mark.real


def processes_of(orc):
    """Those of its `orc up`, the supervisor included."""
    state = json.loads((orc.home / "services.json").read_text())
    return [psutil.Process(state["pid"]), *family(state["instance"])]


def listeners(processes):
    """Address and port → command line, of everything that waits for connections."""
    found = {}
    for process in processes:
        try:
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    address = ipaddress.ip_address(connection.laddr.ip)
                    # Java listens on the IPv6 form of an IPv4 address
                    address = getattr(address, "ipv4_mapped", None) or address
                    found[str(address), connection.laddr.port] = command_of(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_nothing_listens_outside_of_the_interface_that_is_set(orc, tmp_path):
    flow = orc.flow("many", folder=str(tmp_path), count=2, seconds=3.0)
    until(lambda: list(tmp_path.glob("*.ran")), 60)
    found = listeners(processes_of(orc))
    assert orc.result(flow) == 1
    # a worker listens for its peers and for HTTP
    assert sum("dask_worker" in command for command in found.values()) >= 2
    for module in ("dask_scheduler", "prefect server", "agent.governor.process", "agent.graph.server"):
        assert any(module in command for command in found.values()), module
    assert {address: command for (address, _), command in found.items() if address != "127.0.0.1"} == {}


def test_the_prefect_server_asks_for_the_instances_credentials(orc):
    url = orc.env["PREFECT_API_URL"]
    assert httpx.get(f"{url}/health").json() is True
    paths = (
        "/admin/settings",
        "/csrf-token?client=me",
        "/work_pools/orc",
        "/flows/00000000-0000-0000-0000-000000000000",
    )
    for auth in (None, ("orc", "orc"), ("", "")):
        assert [httpx.get(url + path, auth=auth).status_code for path in paths] == [401] * 4
    # who has no token is told so before who has no password, and none comes without one
    assert httpx.post(f"{url}/flow_runs/filter", json={}).status_code == 403
    forged = {"Prefect-Csrf-Client": "me", "Prefect-Csrf-Token": "me"}
    assert httpx.post(f"{url}/flow_runs/filter", json={}, headers=forged).status_code in (401, 403)
    assert isinstance(prefect_api.post(orc.env, "/flow_runs/filter", {}), list)
    assert prefect(orc.env).level == "good"
    told = prefect({**orc.env, "PREFECT_API_AUTH_STRING": "orc:guess"})
    assert (told.level, "another password" in told.says) == ("wrong", True)


def test_a_page_of_another_origin_can_neither_read_nor_write(orc):
    url, user = orc.env["PREFECT_API_URL"], tuple(orc.env["PREFECT_API_AUTH_STRING"].split(":", 1))
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}
    ours = url.removesuffix("/api")
    allowed = {
        origin: httpx.options(f"{url}/flow_runs/filter", headers={"Origin": origin, **asks}).status_code
        for origin in (ours, "http://evil.example", "http://127.0.0.1:1", "null")
    }
    assert allowed == {ours: 200, "http://evil.example": 400, "http://127.0.0.1:1": 400, "null": 400}
    told = httpx.get(f"{url}/health", headers={"Origin": "http://evil.example"}).headers
    assert "access-control-allow-origin" not in told
    # a browser that was told the password sends it along; a form of another page has no token
    forged = httpx.post(f"{url}/flow_runs/filter", auth=user, json={})
    assert (forged.status_code, "CSRF" in forged.text) == (403, True)


def test_the_prefect_ui_opens_and_asks(orc):
    at = orc.env["PREFECT_API_URL"].removesuffix("/api")
    page = httpx.get(at, follow_redirects=True)
    assert page.status_code == 200
    assert "<html" in page.text
    settings = httpx.get(f"{page.url.join('/ui-settings')}").json()
    assert settings["auth"] == "BASIC"
    assert settings["csrf_enabled"] is True
    assert settings["api_url"] == f"{at}/api"
    assert orc.env["PREFECT_API_AUTH_STRING"] in orc.cli("status")


def test_a_deployment_runs_and_brings_no_command_of_its_own(orc, tmp_path):
    (tmp_path / "days.csv").write_text("day,delay\n1,2\n2,3\n")
    said = {
        "sources": {"days": str(tmp_path / "days.csv")},
        "table": {"from": "days", "columns": {"day": {"type": "int"}, "delay": {"type": "int"}}},
        "folder": str(tmp_path / "out"),
    }
    mark = tmp_path / "mark"
    command = [sys.executable, "-m", "prefect", "deployment", "run", "preprocess/tables"]
    for name, value in said.items():
        command += ["--param", f"{name}={json.dumps(value) if isinstance(value, dict) else value}"]
    out = subprocess.run(
        [*command, "--job-variable", f"command=touch {mark}"],
        env=orc.env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    run = next(line.split("UUID:")[1].strip() for line in out.splitlines() if "UUID:" in line)

    def ended():
        """the flow run has ended"""
        (found,) = orc.api("/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED") and found["state"]

    assert until(ended, 120, 0.5)["type"] == "COMPLETED"
    assert not mark.exists()
    (pool,) = prefect_api.post(orc.env, "/work_pools/filter", {})
    assert "command" not in json.dumps(pool["base_job_template"])


def test_the_credentials_are_for_this_user_alone(orc):
    home = orc.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    said = (home / "prefect-auth").read_text()
    assert said == orc.env["PREFECT_API_AUTH_STRING"]
    assert len(said) > 20
    lines = [command_of(process) for process in processes_of(orc)]
    password = said.split(":")[1]
    assert not [line for line in lines if password in line]
    assert not [log.name for log in Path(home / "logs").glob("*.log") if password in log.read_text(errors="replace")]


def test_of_two_at_once_one_starts_and_the_other_says_who_does(tmp_path):
    orc = Orc(tmp_path / "two")
    command = [sys.executable, "-m", "agent.cli.main", "up"]
    env = {**orc.env, "ORC_GRAPH_URL": "off"}
    both = [
        subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    try:
        said = [process.communicate(timeout=200)[0] for process in both]
        assert sorted(process.returncode for process in both) == [0, 2], said
        refused = said[[process.returncode for process in both].index(2)]
        assert re.search(
            r"ORC is (already up|just starting|already up or just starting) in .*two.* \(process \d+", refused
        )
        supervisors = [line for line in orc.left() if "agent.services.supervisor" in line]
        assert len(supervisors) == 1
        assert orc.governor("/status")["epoch"] == 1
        # what ORC keeps is for its user alone
        kept = [file for file in orc.home.iterdir() if file.is_file()]
        assert {"ledger.db", "services.json", "governor.json", "prefect-auth", "lock"} <= {file.name for file in kept}
        assert [file.name for file in kept if stat.S_IMODE(file.stat().st_mode) & 0o077] == []
    finally:
        orc.cli("down", rc=None)
    assert orc.left() == []
