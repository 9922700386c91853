"""Reading and writing a graph with the official driver; every failure has a name and says what to do."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import neo4j
from neo4j import exceptions as foreign

from agent.errors import (
    GraphAwayError,
    GraphClashError,
    GraphError,
    GraphFullError,
    GraphReadOnlyError,
    GraphRefusedError,
    GraphVersionError,
)
from agent.settings import Settings

logger = logging.getLogger("orc.graph")

#: servers, and how far their versions, that the tests ran on
TESTED = ("Neo4j/5.26",)
#: rows in one transaction: larger ones gain nothing and hold locks longer
BATCH = 2_000
#: attempts of a transaction that raced with another one for the same key or lock
_ATTEMPTS = 12
#: attempts of a batch that can still be halved, and the size from which on it is not
_FEW, _SMALL = 3, 50
#: how long a write waits for a server that went away: a restart by `orc up` takes some seconds
PATIENCE_SECONDS = 30.0
#: the longest pause between two attempts
_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a graph is and who we are there."""

    url: str
    user: str
    password: str = field(repr=False)
    #: None: the user's home database
    database: str | None = None


def address(settings: Settings) -> Address:
    """The graph of ORC_GRAPH_URL, else the embedded one of `orc up`. Raises GraphAwayError when there is none."""
    if settings.graph.url == "off":
        raise GraphAwayError("ORC_GRAPH_URL=off: there is no graph; unset it for the embedded one, or name a server")
    if settings.graph.url is not None:
        return Address(
            url=settings.graph.url,
            user=settings.graph.user,
            password=settings.graph.password.get_secret_value(),
            database=settings.graph.database,
        )
    said = said_of(settings.home)
    if said is None:
        raise GraphAwayError(
            f"no graph server runs in {settings.home}: `orc up` starts the embedded one "
            "(pip install 'orc-agent[graph]'), or set ORC_GRAPH_URL"
        )
    return said


def said_of(home: Path) -> Address | None:
    """What graph.json of an ORC_HOME says, or None."""
    try:
        return Address(**json.loads((home / "graph.json").read_text()))
    except (OSError, json.JSONDecodeError, TypeError):
        return None


class Graph:
    """An open connection. Thread-safe. A context manager."""

    def __init__(self, at: Address) -> None:
        self.at = at
        #: transactions that were tried again
        self.retries = 0
        with _named(at):
            self._driver = neo4j.GraphDatabase.driver(
                at.url,
                auth=(at.user, at.password),
                connection_timeout=5,
                connection_acquisition_timeout=20,
                notifications_min_severity="OFF",
            )

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._driver.close()

    def server(self) -> str:
        """The server's name and version. Raises GraphAwayError, GraphRefusedError, GraphVersionError."""
        with _named(self.at):
            agent = str(self._driver.get_server_info().agent)
        if not agent.startswith(TESTED):
            logger.warning(
                "graph %s is %s; ORC was tested with %s: what it loads is counted, but try it on a copy first",
                self.at.url,
                agent,
                " and ".join(f"{name}*" for name in TESTED),
            )
        return agent

    def read(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query; tried again like `run`."""
        return self._tried(neo4j.READ_ACCESS, query, parameters)

    def run(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """One writing transaction, its rows; tried again when it lost a race, or while the server is starting again.

        The server may have committed what it did not get to answer: the query must leave the same when it runs twice.
        """
        return self._tried(neo4j.WRITE_ACCESS, query, parameters)

    def _tried(
        self, access: str, query: str, parameters: Mapping[str, Any], attempts: int = _ATTEMPTS
    ) -> list[dict[str, Any]]:
        end, lost = time.monotonic() + PATIENCE_SECONDS, 0
        for attempt in itertools.count():
            try:
                return self._once(access, query, parameters)
            except (GraphClashError, GraphAwayError) as error:
                lost += isinstance(error, GraphClashError)
                # the driver's own retries begin with a pause of a second, for a deadlock that is over in milliseconds
                pause = random.uniform(0.5, 1) * min(_PAUSE_SECONDS, 0.02 * 2 ** min(attempt, 10))
                if lost == attempts or time.monotonic() + pause > end:
                    raise
                self.retries += 1
                time.sleep(pause)
        raise AssertionError

    def _once(self, access: str, query: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        with (
            _named(self.at),
            self._driver.session(
                database=self.at.database,
                default_access_mode=access,
                bookmark_manager=self._driver.execute_query_bookmark_manager,
            ) as session,
            session.begin_transaction() as transaction,
        ):
            rows = [row.data() for row in transaction.run(query, dict(parameters))]
            transaction.commit()
            return rows

    def write(self, query: str, rows: Sequence[Mapping[str, Any]], batch: int = BATCH) -> None:
        """A query over `$rows`, in transactions of at most `batch` rows: all of such rows are written, or none."""
        for at in range(0, len(rows), batch):
            self._written(query, list(rows[at : at + batch]))

    def _written(self, query: str, rows: list[Mapping[str, Any]]) -> None:
        try:
            self._tried(neo4j.WRITE_ACCESS, query, {"rows": rows}, _ATTEMPTS if len(rows) <= _SMALL else _FEW)
        except GraphClashError:
            if len(rows) <= _SMALL:
                raise
            # beside other loaders a shorter transaction gets through where a long one always loses
            half = len(rows) // 2
            self._written(query, rows[:half])
            self._written(query, rows[half:])

    def unique(self, label: str, *keys: str) -> None:
        """A uniqueness constraint on a label's key: without one, parallel MERGEs make twins."""
        names = ", ".join(f"n.{quoted(key)}" for key in keys)
        target = f"({names})" if len(keys) > 1 else names
        name = quoted("_".join((label, *keys, "unique")).lower())
        self.run(f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{quoted(label)}) REQUIRE {target} IS UNIQUE")


def quoted(name: str) -> str:
    """A label, type or property as Cypher quotes it."""
    return "`" + name.replace("`", "``") + "`"


@contextlib.contextmanager
def _named(at: Address) -> Iterator[None]:
    try:
        yield
    except foreign.UnsupportedServerProduct as error:
        raise GraphVersionError(
            f"graph {at.url} speaks no Bolt that the driver {neo4j.__version__} knows; upgrade the server "
            "(Neo4j 4.4 and later do), or install a driver of its age (pip install neo4j==VERSION)"
        ) from error
    except foreign.AuthError as error:
        raise GraphRefusedError(
            f"graph {at.url} refuses user {at.user!r}; check ORC_GRAPH_USER and ORC_GRAPH_PASSWORD"
        ) from error
    except (foreign.ServiceUnavailable, foreign.SessionExpired, OSError) as error:
        raise GraphAwayError(
            f"graph {at.url} cannot be reached ({_line(error)}); is it up, and the address right?"
        ) from error
    except (foreign.ConfigurationError, ValueError) as error:
        raise GraphError(f"graph {at.url}: {_line(error)}; write bolt://HOST:PORT or neo4j://HOST:PORT") from error
    except foreign.Neo4jError as error:
        raise _translated(at, error) from error
    except foreign.DriverError as error:
        raise GraphError(f"graph {at.url}: {_line(error)}") from error


def _translated(at: Address, error: foreign.Neo4jError) -> GraphError:
    code, line = error.code or "", _line(error)
    low = f"{code} {line}".lower()
    if "readonly" in low or "read only" in low or "read-only" in low or "notaleader" in low or "forbidden" in low:
        return GraphReadOnlyError(f"graph {at.url} may not be written: {line}; open it for writing, or name another")
    if "no space left" in low or "outofmemory" in low or "out of memory" in low or "disk full" in low:
        return GraphFullError(f"graph {at.url} is full: {line}; make room and run again, it goes on where it stopped")
    if "databasenotfound" in low or ("database" in low and "does not exist" in low):
        return GraphError(f"graph {at.url} has no database {at.database!r}: {line}; check ORC_GRAPH_DATABASE")
    if "databaseunavailable" in low or "database is not available" in low or "shutting down" in low:
        return GraphAwayError(f"graph {at.url} does not serve its database now: {line}; run again when it is up")
    clash = "constraintvalidation" in low or "duplicated key" in low or "concurrentmodification" in low
    if clash or error.is_retryable() or "please retry" in low:
        return GraphClashError(f"graph {at.url}: {line}")
    return GraphError(f"graph {at.url}: {line} ({code})")


def _line(error: BaseException) -> str:
    said = error.message if isinstance(error, foreign.Neo4jError) else None
    lines = (said or str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
