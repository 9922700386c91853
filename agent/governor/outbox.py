"""What events, people and providers ask for: on record first, then done."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.governor.journal import Journal
from agent.governor.provisioner import Provisioner
from agent.governor.scheduler_client import SchedulerClient
from agent.model.effects import CopyOff, Effect, Note, RefuseTask, SeeTo
from agent.model.records import Entry
from agent.state.approvals import Answers
from agent.state.cluster import ClusterState

logger = logging.getLogger("orc.governor")

#: keys of refused tasks that a record names
REFUSED_NAMED = 100


class Outbox:
    """Effects that wait for the next round."""

    def __init__(self, state: ClusterState, journal: Journal, client: SchedulerClient, mode: str) -> None:
        self.state, self.journal, self.client, self.mode = state, journal, client, mode
        self._waiting: list[Effect] = []
        self._once_recorded: list[Callable[[], None]] = []

    def once_recorded(self, call: Callable[[], None]) -> None:
        """Called when all that waits now is on record: nobody is told that a word was taken which a crash
        could lose.
        """
        self._once_recorded.append(call)

    def note(self, note: Note) -> None:
        """Put something on record with the next round."""
        self._waiting.append(note)

    def answer(self, body: Mapping[str, Any], actor: str) -> None:
        """A person approved, rejected or overrode: on record first, then in force, also after a restart."""
        self.note(Note(kind="answer", body=body, actor=actor))
        for group in body["groups"]:
            self.state.groups.answers.setdefault(group, Answers()).take(body)
        self.state.dirty = True

    def put(self, effects: Iterable[Effect], provisioner: Provisioner) -> None:
        """See to what an event asks for: launched workers that left at once, the rest in the next round."""
        for effect in effects:
            if isinstance(effect, SeeTo):
                provisioner.see_to(effect)
            else:
                self._waiting.append(effect)

    async def carry_out(self, provisioner: Provisioner, now_ms: int) -> None:
        """What people and providers said is on record before it has an effect."""
        effects, self._waiting = self._waiting, []
        recorded, self._once_recorded = self._once_recorded, []
        wrong = [effect for effect in effects if isinstance(effect, RefuseTask)]
        notes = [effect for effect in effects if isinstance(effect, Note)]
        if wrong:
            logger.warning("%d tasks are refused: %s", len(wrong), wrong[0].why)
            some = [str(task.key) for task in wrong[:REFUSED_NAMED]]
            notes.append(Note(kind="refusal", body={"refused": some, "count": len(wrong), "why": wrong[0].why}))
        await self.write(notes, now_ms)
        for call in recorded:
            call()
        if wrong:
            refuse = [(task.key, "SettingError", task.why) for task in wrong]
            await self.client.call("orc_instruct", refuse=refuse)
        for effect in effects:
            if isinstance(effect, CopyOff):
                provisioner.job(self.client.copy_off(effect.address))

    async def write(self, notes: Iterable[Note], now_ms: int) -> None:
        """Each kind of note, from each author, is a record of its own."""
        by_author: dict[tuple[str, str], list[Any]] = {}
        for note in notes:
            by_author.setdefault((note.kind, note.actor), []).append(dict(note.body))
        for (kind, actor), bodies in by_author.items():
            entry = Entry(kind=kind, at_ms=now_ms, mode=self.mode, actor=actor, says={"notes": bodies})
            await self.journal.commit(entry)
