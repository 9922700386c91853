"""A page beside Dask's dashboard, its figures, and metrics beside Dask's."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import tornado.web

from agent.scheduler.dashboard import metrics
from agent.scheduler.status import SchedulerStatus


class _Page(tornado.web.RequestHandler):
    def initialize(self, html: str) -> None:
        self.html = html

    def get(self) -> None:
        self.write(self.html)


class _Figures(tornado.web.RequestHandler):
    def initialize(self, status: SchedulerStatus) -> None:
        self.status = status

    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps(self.status.shown()))


def serve(scheduler: Any, status: SchedulerStatus) -> None:
    """Add the page to the scheduler's HTTP server, where it has one, and the metrics to its `/metrics`."""
    application = getattr(scheduler, "http_application", None)
    if application is not None:
        # as a resource: the package may have come as a zip file
        html = resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
        routes: list[Any] = [
            (r"/orc/?", tornado.web.RedirectHandler, {"url": "/orc/page", "permanent": False}),
            (r"/orc/page", _Page, {"html": html}),
            (r"/orc/figures", _Figures, {"status": status}),
        ]
        application.add_handlers(r".*", routes)
    metrics.register(status)
