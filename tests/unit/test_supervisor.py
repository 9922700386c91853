"""The owner of the services: what it starts again, what it does not, and what it hands to each."""

from __future__ import annotations

import asyncio
import sys

import pytest

from agent.processes.bootstrap import FENCED
from agent.services.definitions import Service
from agent.services.environment import environment, new_prefect_auth, prefect_auth
from agent.services.supervisor import Supervisor
from agent.settings import Settings
from harness.wait import until


@pytest.fixture
def supervisor(tmp_path):
    """One that has started nothing, of its own folder."""
    home = tmp_path / "orc"
    (home / "logs").mkdir(parents=True)
    return Supervisor(Settings(home=home, prefect={"database_url": "postgresql+asyncpg://u:hunter2@h/db"}), {}, 0o022)


def ended(supervisor, code, final):
    """A service that notes each start and ends with a code; how often it was started when it is left alone."""
    mark = supervisor.settings.home / "starts"
    mark.touch()
    program = f"open({str(mark)!r}, 'a').write('x'); raise SystemExit({code})"
    service = Service("brief", [sys.executable, "-c", program], final=final)

    async def story():
        await supervisor._up(service)
        (watcher,) = supervisor.watchers
        again = asyncio.create_task(asyncio.to_thread(until, lambda: watcher.done() or len(mark.read_text()) >= 2, 30))
        await asyncio.wait({watcher, again}, return_when=asyncio.FIRST_COMPLETED)
        supervisor.stopping.set()
        if not watcher.done():
            await service.process.wait()
            watcher.cancel()
        again.cancel()
        return len(mark.read_text())

    return asyncio.run(story())


def test_a_service_that_ends_is_started_again(supervisor):
    assert ended(supervisor, 1, (FENCED,)) >= 2


def test_a_governor_that_was_overtaken_is_not_started_again(supervisor, caplog):
    governor = supervisor.services.governor
    assert governor.final == (FENCED,)
    assert ended(supervisor, FENCED, governor.final) == 1
    assert "another one has taken over" in caplog.text


def test_flows_and_tasks_write_with_the_rights_of_the_shell(supervisor):
    assert supervisor.services.prefect_worker.umask == 0o022
    assert supervisor.services.governor.env["ORC_TASK_UMASK"] == "022"
    assert Settings(task_umask="022").umask_of_tasks() == 0o022
    # the services themselves keep the supervisor's own
    assert {s.umask for s in (supervisor.services.governor, supervisor.services.prefect_server)} == {-1}


def test_only_the_prefect_server_is_told_its_database_and_how_it_guards_itself(supervisor):
    said = environment(supervisor.settings, supervisor.state)
    own = supervisor.services.prefect_server.env
    assert own["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith("u:hunter2@h/db")
    assert own["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    port = supervisor.state.ports["prefect"]
    assert own["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == f"http://127.0.0.1:{port},http://localhost:{port}"
    assert "hunter2" not in " ".join(said.values())
    assert own["PREFECT_SERVER_API_AUTH_STRING"] == said["PREFECT_API_AUTH_STRING"] == prefect_auth(supervisor.settings)


def test_the_password_is_made_once(supervisor):
    first = new_prefect_auth(supervisor.settings)
    assert new_prefect_auth(supervisor.settings) == first
    (supervisor.settings.home / "prefect-auth").unlink()
    assert new_prefect_auth(supervisor.settings) != first
