"""The command line's client of the governor: whatever answers, people read a sentence."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import httpx
import pytest
import tornado.httpserver
import tornado.testing

from agent.cli.face import ask
from agent.errors import ServiceError
from agent.governor.face import TOKEN, application
from agent.settings import Settings


class _Server(BaseHTTPRequestHandler):
    """Answers each path with what it is told to, below."""

    answers: ClassVar = {
        "/status": (200, b'{"mode": "govern"}'),
        "/page": (500, b"<html>500: Internal Server Error</html>"),
        "/reason": (409, b'{"error": "it no longer waits"}'),
        "/list": (200, b"[1, 2]"),
        "/text": (200, b"hello"),
        "/errors": (500, b'["no reason"]'),
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


def test_a_failure_that_nobody_foresaw_is_json_too(caplog):
    class Broken:
        """Stands for a governor whose state nobody can read."""

        def __getattr__(self, name: str) -> object:
            raise RuntimeError("a fault of ours")

    async def asked() -> httpx.Response:
        listening, port = tornado.testing.bind_unused_port()
        server = tornado.httpserver.HTTPServer(application(Broken(), "secret"))
        server.add_socket(listening)
        try:
            async with httpx.AsyncClient(headers={TOKEN: "secret"}) as client:
                return await client.get(f"http://127.0.0.1:{port}/status")
        finally:
            server.stop()
            await server.close_all_connections()

    reply = asyncio.run(asked())
    assert reply.status_code == 500
    assert "the governor failed at /status" in reply.json()["error"]
    assert "a fault of ours" in caplog.text  # the log has the cause
