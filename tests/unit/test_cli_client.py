"""The command line's client of the governor: whatever answers, people read a sentence."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

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
    (tmp_path / "governor.json").write_text(
        json.dumps({"url": f"http://127.0.0.1:{server.server_port}", "token": "secret"})
    )
    yield Settings(home=tmp_path)
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
    (tmp_path / "governor.json").write_text(json.dumps({"url": "http://127.0.0.1:1", "token": ""}))
    with pytest.raises(ServiceError, match="start one with `orc up`"):
        ask(Settings(home=tmp_path), "GET", "/status")
