"""The routes, versioned, each with who calls. Whatever goes wrong is answered as JSON with a sentence."""

from __future__ import annotations

import hmac
import logging
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from agent.api import schemas
from agent.api.client import PREFIX, TOKEN
from agent.api.port import Desk
from agent.errors import NotAllowedError, RequestError
from agent.model.identity import Identity

logger = logging.getLogger("orc.api")


def application(desk: Desk, token: str) -> FastAPI:
    """The API of one governor.

    Args:
        token: shared by this machine's user and ORC's own processes; a file of theirs keeps it.
    """
    app = FastAPI(title="ORC", version="1", docs_url=None, redoc_url=None)
    app.add_exception_handler(RequestError, _unanswerable)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _failed)

    async def known(given: Annotated[str, Header(alias=TOKEN)] = "") -> None:
        # as bytes: text that is not ASCII cannot be compared, and is no token
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise NotAllowedError(f"the token is missing or wrong; it is in governor.json of ORC_HOME (header {TOKEN})")

    guarded = [Depends(known)]

    @app.get(f"{PREFIX}/status", dependencies=guarded)
    async def status() -> schemas.Status:
        return desk.status()

    @app.get(f"{PREFIX}/why", dependencies=guarded)
    async def why(run: str = "") -> schemas.Why:
        return await desk.why(run)

    @app.get(f"{PREFIX}/holds", dependencies=guarded)
    async def holds() -> schemas.Holds:
        return desk.holds()

    @app.post(f"{PREFIX}/override", dependencies=guarded)
    async def override(said: schemas.Override) -> schemas.Overridden:
        return await desk.override(said, Identity(subject=said.by, how="claimed"))

    @app.post(f"{PREFIX}/{{verb}}", dependencies=guarded)
    async def answer(verb: Literal["approve", "reject"], said: schemas.Answer) -> schemas.Answered:
        return await desk.answer(verb, said, Identity(subject=said.by, how="claimed"))

    # figures without names of people or data: Prometheus asks without a token, on loopback
    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(desk.metrics(), media_type="text/plain; version=0.0.4")

    @app.get("/health")
    async def health() -> dict[str, bool]:
        return {"ok": True}

    return app


def _says(status: int, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status_code=status)


async def _unanswerable(_: Request, error: Exception) -> JSONResponse:
    return _says(getattr(error, "status", 400), str(error))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    status = getattr(error, "status_code", 400)
    return _says(status, f"{request.url.path}: {getattr(error, 'detail', error)}")


async def _wrong(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    parts = [f"{'.'.join(str(at) for at in one['loc'][1:]) or 'the body'}: {one['msg']}" for one in error.errors()[:5]]
    return _says(400, f"{request.url.path} cannot be read: {'; '.join(parts)}")


async def _failed(request: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw is JSON too: the command line shows a sentence, the log has the traceback."""
    logger.error("%s failed", request.url.path, exc_info=error)
    return _says(500, f"the governor failed at {request.url.path}; its log says why")
