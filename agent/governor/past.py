"""What a new governor recalls from the ledger: numbers, answers, open questions, runs, and all that was learned."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from agent.governor.journal import Journal
from agent.ledger.ledger import Ledger
from agent.state import history
from agent.state.approvals import Answers
from agent.state.cluster import ClusterState
from agent.state.recorder import Recorder

logger = logging.getLogger("orc.governor")

#: records read at once
PAGE = 1_000
#: kinds of records that are replayed; `said` is what they were called together in ledgers of before
KINDS = ("said", "answer", "approval", "out_of_memory")


async def recall(state: ClusterState, recorder: Recorder, journal: Journal) -> None:
    """Take in the past, before the first snapshot."""
    ledger = journal.ledger
    ids = await journal.call(ledger.next_ids)
    recorder.next_decision, recorder.next_placement, state.fleet.leases.next_id, recorder.next_run = ids
    for run in await journal.call(ledger.runs):
        recorder.runs[run.flow_run] = run.no
    for seq, body in await journal.call(lambda: list(_notes(ledger))):
        _replay(state, seq, body)
    executions = await journal.call(lambda: list(ledger.executions()))
    leases = await journal.call(ledger.leases)
    history.learn(state, executions, leases)


def _notes(ledger: Ledger) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Every note that is replayed, oldest first, with the number of its record."""
    found: list[tuple[int, int, Mapping[str, Any]]] = []
    for kind in KINDS:
        after = 0
        while records := ledger.records(after, PAGE, kind):
            after = records[-1].seq
            for record in records:
                bodies = record.body.get("notes") or record.body.get("said") or ()
                found += [(record.seq, at, body) for at, body in enumerate(bodies)]
    for seq, _, body in sorted(found, key=lambda note: note[:2]):
        yield seq, body


def _replay(state: ClusterState, seq: int, body: Mapping[str, Any]) -> None:
    """Take in one note. What cannot be read is said, and passed: it must not keep everybody from being placed."""
    try:
        if "mib" in body:
            state.out_of_memory(str(body.get("task_class") or body["starved"]), int(body["mib"]))
        elif "asked_ms" in body:
            state.approvals.restore(body)
        else:
            for group in body.get("groups", ()):
                state.groups.answers.setdefault(str(group), Answers()).take(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.error("record %d of the ledger holds a note that cannot be read (%s); it is passed", seq, error)
