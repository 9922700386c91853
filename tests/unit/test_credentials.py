"""Credentials in Prefect's settings do not travel with a task run; its worker has them or is told them."""

from __future__ import annotations

import asyncio
import pickle
import threading

import pytest
from prefect.context import SettingsContext, serialize_context
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    PREFECT_CLIENT_CUSTOM_HEADERS,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    PREFECT_SERVER_DATABASE_PASSWORD,
    PREFECT_SERVER_DOCKET_URL,
    Profile,
    temporary_settings,
)

from agent.errors import SettingError
from agent.runner.credentials import Credentials
from agent.worker import credentials
from agent.worker.credentials import Told, Withheld

HOST = "127.0.0.1:4200/api"
SECRETS = {
    PREFECT_API_AUTH_STRING: "orc:hidden-1",
    PREFECT_API_KEY: "hidden-2",
    PREFECT_CLIENT_CUSTOM_HEADERS: {"X-Door": "hidden-3"},
    PREFECT_SERVER_API_AUTH_STRING: "hidden-4",
    PREFECT_SERVER_DATABASE_PASSWORD: "hidden-5",
    PREFECT_SERVER_DATABASE_CONNECTION_URL: "postgresql+asyncpg://u:hidden-6@h/d",
    PREFECT_SERVER_DOCKET_URL: "redis://:hidden-7@h/0",
}


class Worker:
    """Dask's, as far as a task asks of it; `flow` hears what it says to the scheduler."""

    address = "tcp://127.0.0.1:1"

    def __init__(self, flow=None):
        self.flow, self.asked = flow, 0

    def log_event(self, topic, event):
        self.asked += 1
        assert topic == credentials.TOPIC
        if self.flow is not None:
            threading.Thread(target=self.flow, args=(event,)).start()


def taken_out(url):
    with temporary_settings({**SECRETS, PREFECT_API_URL: url}):
        return credentials.withhold(serialize_context(), SettingsContext.get())


@pytest.mark.parametrize("url", [f"http://{HOST}", f"http://u:hidden-8@{HOST}", None])
def test_no_credential_of_prefects_settings_travels(url):
    context, values = taken_out(url)
    assert b"hidden" not in pickle.dumps(context)
    assert "hidden" not in repr(Told(values))
    needed = {("api", "auth_string"), ("api", "key"), ("client", "custom_headers")}
    if url is None:  # each worker starts a server of its own, as Prefect does
        own = ("api.auth_string", "database.password", "database.connection_url", "docket.url")
        needed |= {("server", *path.split(".")) for path in own}
    elif "@" in url:
        needed |= {("api", "url")}
    assert set(values) == needed


def test_a_profiles_credentials_do_not_travel_either():
    with temporary_settings({PREFECT_API_URL: f"http://{HOST}"}):
        settings = SettingsContext.get()
        profile = Profile(name="theirs", settings={PREFECT_API_KEY: "hidden-9", PREFECT_API_URL: f"http://{HOST}"})
        with SettingsContext(profile=profile, settings=settings.settings):
            context, _ = credentials.withhold(serialize_context(), SettingsContext.get())
    assert context["settings_context"]["profile"]["settings"] == {"PREFECT_API_URL": f"http://{HOST}"}


def test_settings_without_credentials_travel_as_they_are():
    with temporary_settings({PREFECT_API_URL: f"http://{HOST}"}):
        context = serialize_context()
        assert credentials.withhold(context, SettingsContext.get()) == (context, {})


def test_a_worker_fills_in_its_own_of_the_same_server_and_asks_nobody():
    context, values = taken_out(f"http://{HOST}")
    withheld, worker = Withheld(name="own", paths=tuple(values)), Worker()
    own = {PREFECT_API_AUTH_STRING: "w:own", PREFECT_API_KEY: "own", PREFECT_CLIENT_CUSTOM_HEADERS: {"X-Door": "own"}}
    with temporary_settings({**own, PREFECT_API_URL: f"http://{HOST}/"}):
        settings = credentials.filled(context["settings_context"], withheld, worker)["settings"]
    assert (settings["api"]["auth_string"], settings["api"]["key"]) == ("w:own", "own")
    assert settings["client"]["custom_headers"] == {"X-Door": "own"}
    assert worker.asked == 0


@pytest.mark.parametrize(
    "mine", [{PREFECT_API_URL: "http://elsewhere/api", PREFECT_API_KEY: "own"}, {PREFECT_API_URL: f"http://{HOST}"}]
)
def test_a_worker_that_has_none_for_that_server_is_told_by_the_flows_process(mine):
    with temporary_settings({PREFECT_API_URL: f"http://{HOST}", PREFECT_API_KEY: "hidden"}):
        context, values = credentials.withhold(serialize_context(), SettingsContext.get())
    withheld = Withheld(name=f"told-{len(mine)}", paths=tuple(values))
    worker = Worker(lambda event: credentials.receive(event["name"], Told(values)))
    with temporary_settings(mine):
        said = credentials.filled(context["settings_context"], withheld, worker)
        assert SettingsContext(**said).settings.api.key.get_secret_value() == "hidden"
        credentials.filled(context["settings_context"], withheld, worker)
    assert worker.asked == 1  # it remembers


def test_a_worker_that_nobody_tells_says_what_it_lacks_and_where_to_put_it():
    context, values = taken_out(f"http://{HOST}")
    withheld = Withheld(name="untold", paths=tuple(values))
    with pytest.raises(SettingError, match=r"127.0.0.1:1 .* http://127.0.0.1:4200/api.*PREFECT_API_AUTH_STRING"):
        credentials.filled(context["settings_context"], withheld, Worker(), patience=0.01)


def told_by(runner, **asked):
    """Which workers a runner's client was made to tell."""
    heard, handlers = [], []

    class Client:
        def subscribe_topic(self, topic, handler):
            handlers.append(handler)

        async def run(self, function, *arguments, workers):
            heard.append((function, arguments, workers))

    runner.listen(Client())
    for handler in handlers:
        asyncio.run(handler((0.0, asked)))
    return heard


def test_a_runner_tells_only_who_asks_by_the_right_name_and_nobody_once_it_has_ended():
    runner = Credentials()
    with temporary_settings({PREFECT_API_URL: f"http://{HOST}", PREFECT_API_KEY: "hidden"}):
        _, withheld = runner.withhold(serialize_context())
    ((function, (name, told), workers),) = told_by(runner, name=withheld.name, worker="tcp://w")
    assert (function, name, told.values, workers) == (
        credentials.receive, withheld.name, {("api", "key"): "hidden"}, ["tcp://w"],
    )  # fmt: skip
    runner._listening = False
    assert told_by(runner, name="guess", worker="tcp://w") == []
    runner.end()
    runner._listening = False
    assert told_by(runner, name=withheld.name, worker="tcp://w") == []
