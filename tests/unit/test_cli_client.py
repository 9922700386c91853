"""The command line's client of the governor: whatever answers, people read a sentence."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from agent.api import address
from agent.api.address import Published
from agent.api.client import ask
from agent.errors import ServiceError
from agent.settings import Settings


class _Server(BaseHTTPRequestHandler):
    """Answers each path with what it is told to, below."""

    answers: ClassVar = {
        "/v1/status": (200, b'{"mode": "govern"}'),
        "/v1/page": (500, b"<html>500: Internal Server Error</html>"),
        "/v1/reason": (409, b'{"error": "it no longer waits"}'),
        "/v1/list": (200, b"[1, 2]"),
        "/v1/text": (200, b"hello"),
        "/v1/errors": (500, b'["no reason"]'),
    }

    def do_GET(self) -> None:
        status, body = self.answers[self.path.split("?")[0]]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def settings(tmp_path) -> Iterator[Settings]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    published = Published(tmp_path)
    published.open(f"http://127.0.0.1:{server.server_port}", "secret")
    yield Settings(home=tmp_path)
    published.withdraw()
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_answer_is_an_object(settings):
    assert ask(settings, "GET", "/status") == {"mode": "govern"}


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/page", "the governor answered 500 to /page, without a reason"),
        ("/errors", "the governor answered 500 to /errors, without a reason"),
        ("/reason", "it no longer waits"),
        ("/list", "is no governor"),
        ("/text", "is no governor"),
    ],
)
def test_what_is_no_answer_is_told_in_a_sentence(settings, path, says):
    with pytest.raises(ServiceError, match=says) as caught:
        ask(settings, "GET", path)
    assert "JSONDecode" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"url": "http://127.0.0.1:1"}'])
def test_a_governors_file_that_is_none_is_told(tmp_path, content):
    (tmp_path / "governor.json").write_text(content)
    with pytest.raises(ServiceError, match="governor"):
        ask(Settings(home=tmp_path), "GET", "/status")


def test_a_governor_that_is_gone_is_told(tmp_path):
    with pytest.raises(ServiceError, match="start one with `orc up`"):
        ask(Settings(home=tmp_path), "GET", "/status")
    published = Published(tmp_path)
    published.open("http://127.0.0.1:1", "")
    with pytest.raises(ServiceError, match="start one with `orc up`"):
        ask(Settings(home=tmp_path), "GET", "/status")
    published.withdraw()
    with pytest.raises(ServiceError, match="the governor is not running"):
        ask(Settings(home=tmp_path), "GET", "/status")


PUBLISH = """
import sys
from pathlib import Path
from agent.api.address import Published
address = Published(Path(sys.argv[1]))
address.open(sys.argv[2], "secret") if sys.argv[2] else address.standby()
print("written", flush=True)
sys.stdin.read()
"""


@contextmanager
def governor(home, url):
    """A process that has said where it answers."""
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISH, home, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "written\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_address_of_a_killed_governor_is_not_believed_whoever_listens_there_now(settings):
    url = f"http://127.0.0.1:{urlsplit(address.read(settings.home).url).port}"
    with governor(settings.home, url) as process:
        assert ask(settings, "GET", "/status") == {"mode": "govern"}
        process.kill()
        process.wait()
        assert (settings.home / "governor.json").exists()
        with pytest.raises(ServiceError, match=f"the governor is not running: process {process.pid} .* is gone"):
            ask(settings, "GET", "/status")


def test_a_governor_that_stands_by_says_so_and_takes_no_others_place(settings, tmp_path):
    (tmp_path / "other").mkdir()
    with governor(tmp_path / "other", ""):
        with pytest.raises(ServiceError, match="stands by: another one governs local"):
            ask(Settings(home=tmp_path / "other"), "GET", "/status")
    with governor(settings.home, ""):
        assert ask(settings, "GET", "/status") == {"mode": "govern"}
