"""The consumer that keeps the graph of the run: what ran where and why, as the ledger says it."""

from __future__ import annotations

import asyncio
import time

from agent.errors import GraphAwayError, GraphError
from agent.graph.bolt import Graph, address
from agent.ledger.ledger import Ledger
from agent.mind.projection import LABELS, project
from agent.settings import Settings

#: records taken in at once: their tasks are some transactions
RECORDS = 100
#: while nothing new is on record the graph is asked only so often, seconds: it may have been emptied or restored
ASK = 5.0
#: nodes deleted in one transaction
_DELETED = 5_000


class RunGraph:
    """See `Consumer`.

    Its cursor stands in the graph itself: a graph that was emptied or restored is brought up to date.
    """

    name = "the graph"
    away: tuple[type[Exception], ...] = (GraphError,)

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self.ledger, self.settings = ledger, settings
        self._graph: Graph | None = None
        #: the ledger's last record when the graph had everything, and until when that is believed, monotonic seconds
        self._complete = -1, 0.0

    async def look(self) -> bool:
        """See `Consumer`."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> bool:
        seq, until = self._complete
        last = self.ledger.last_seq()
        if last == seq and time.monotonic() < until:
            return False
        more = self.take_in()
        if not more:
            # what is written from here on has a later number
            self._complete = last, time.monotonic() + ASK
        return more

    async def leave(self) -> None:
        """See `Consumer`."""
        if self._graph is not None:
            graph, self._graph, self._complete = self._graph, None, (-1, 0.0)
            await asyncio.to_thread(graph.close)

    def take_in(self) -> bool:
        """Project the next records; True when there may be more.

        Writing them twice leaves the graph as writing them once.
        """
        graph = self._opened()
        found = graph.read("MATCH (c:OrcCursor {id: $id}) RETURN c.seq AS seq", id=self.ledger.scheduler)
        after = int(found[0]["seq"]) if found else 0
        records = self.ledger.records(after, RECORDS)
        if not records:
            return False
        for statement, rows in project(self.ledger, records).statements():
            graph.write(statement, rows)
        graph.run(
            "MERGE (c:OrcCursor {id: $id}) SET c.seq = $seq RETURN c.seq AS seq",
            id=self.ledger.scheduler,
            seq=records[-1].seq,
        )
        return len(records) == RECORDS

    def lag(self) -> int:
        """Records the graph is behind."""
        found = self._opened().read("MATCH (c:OrcCursor {id: $id}) RETURN c.seq AS seq", id=self.ledger.scheduler)
        return self.ledger.last_seq() - (int(found[0]["seq"]) if found else 0)

    def rebuild(self) -> int:
        """Forget everything of this scheduler and project the ledger from its first record. Records taken in."""
        graph = self._opened()
        for label in LABELS:
            if label in ("OrcFlow", "OrcAsset"):  # shared between schedulers, and said again by the records
                continue
            what = (
                f"MATCH (n:{label}) WHERE n.scheduler = $s WITH n LIMIT {_DELETED} DETACH DELETE n RETURN count(*) AS n"
            )
            while graph.run(what, s=self.ledger.scheduler)[0]["n"]:
                pass
        for label in ("OrcFlow", "OrcAsset"):
            graph.run(f"MATCH (n:{label}) WHERE NOT (n)--() DETACH DELETE n RETURN count(*) AS n")
        graph.run("MATCH (c:OrcCursor {id: $id}) DELETE c RETURN count(*) AS n", id=self.ledger.scheduler)
        while self.take_in():
            pass
        return self.ledger.last_seq()

    def _opened(self) -> Graph:
        if self._graph is None:
            graph = Graph(address(self.settings))
            try:
                for label in (*LABELS, "OrcCursor"):
                    graph.unique(label, "id")
            except GraphError:
                graph.close()
                raise
            self._graph = graph
        return self._graph


def has_graph(settings: Settings) -> bool:
    """Whether there is an address to go to."""
    try:
        address(settings)
    except GraphAwayError:
        return False
    return True
