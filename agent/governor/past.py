"""What a new governor recalls from the ledger: numbers, answers, open questions, runs, and all that was learned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from agent.governor.journal import Journal
from agent.ledger import kinds
from agent.state import history
from agent.state.approvals import Answers
from agent.state.cluster import ClusterState
from agent.state.recorder import Recorder

logger = logging.getLogger("orc.governor")

#: kinds of notes that are taken in again
REPLAYED = (kinds.ANSWER, kinds.APPROVAL, kinds.OUT_OF_MEMORY, kinds.CHECKPOINT)


async def recall(state: ClusterState, recorder: Recorder, journal: Journal) -> None:
    """Take in the past, before the first snapshot."""
    ledger = journal.ledger
    ids = await journal.call(ledger.next_numbers)
    recorder.next_decision, recorder.next_placement, state.fleet.leases.next_id, recorder.next_run = ids
    for run in await journal.call(ledger.runs):
        recorder.runs[run.flow_run] = run.no
    for note in await journal.call(lambda: list(ledger.notes(REPLAYED))):
        _replay(state, note.seq, note.kind, note.body)
    executions = await journal.call(ledger.executions)
    leases = await journal.call(ledger.leases)
    history.learn(state, executions, leases)


def _replay(state: ClusterState, seq: int, kind: str, body: Mapping[str, Any]) -> None:
    """Take in one note. What cannot be read is said, and passed: it must not keep everybody from being placed.

    Ledgers of before have one kind for all the others, which are told apart by what they say.
    """
    try:
        if kind == kinds.CHECKPOINT:
            state.checkpointed(str(body["task"]), int(body["done_ms"]), str(body["pool"]), int(body["mib"]))
        elif "mib" in body:
            state.out_of_memory(str(body.get("task_class") or body["starved"]), int(body["mib"]))
        elif "asked_ms" in body:
            state.approvals.restore(body)
        else:
            for group in body.get("groups", ()):
                state.groups.answers.setdefault(str(group), Answers()).take(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        logger.error("record %d of the ledger holds a note that cannot be read (%s); it is passed", seq, error)
