"""Questions to people and what they answered, of groups whose names may change while a question is open. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.model.approvals import Approval, ApprovalState
from agent.model.codec import digest, encode
from agent.model.snapshot import Group

#: questions that are over and still told apart from those that never were
CLOSED_KEPT = 1_000


@dataclass(slots=True)
class Answers:
    """What people said about a group: approvals and overrides."""

    approved: tuple[str, ...] = ()
    approved_pools: tuple[str, ...] = ()
    approved_by: str | None = None
    approved_usd_micros: int | None = None
    rejected_by: str | None = None
    override: str | None = None

    def take(self, body: Mapping[str, Any]) -> None:
        """An answer as it stands on record. One that cannot be read is left out by the caller."""
        if "override" in body:
            self.override = str(body["override"])
        elif body.get("answer") == "approve":
            self.approved = tuple(str(rule) for rule in body["rules"])
            self.approved_pools = (*self.approved_pools, str(body["pool"]))
            usd = body.get("usd_micros")
            if usd is not None and (isinstance(usd, bool) or not isinstance(usd, int)):
                raise ValueError(f"usd_micros is {usd!r}, not whole micro-dollars")
            self.approved_by, self.approved_usd_micros, self.rejected_by = str(body["by"]), usd, None
        elif body.get("answer") == "reject":
            self.rejected_by = str(body["by"])


class Approvals:
    """The open questions. One that nobody answers stays until its tasks no longer wait."""

    def __init__(self) -> None:
        self._open: dict[str, Approval] = {}
        #: the newest that are over
        self._closed: dict[str, Approval] = {}

    def restore(self, body: Mapping[str, Any]) -> None:
        """A question as it stands on record, oldest first."""
        found = Approval(
            **{
                **body,
                "rules": tuple(map(str, body["rules"])),
                "known_as": tuple(map(str, body.get("known_as", ()))),
            }
        )
        if found.state == "asked":
            self._open[found.id] = found
        else:
            self._open.pop(found.id, None)
            self._over(found)

    def ask(self, group: Group, pool: str, rules: tuple[str, ...], now_ms: int) -> tuple[Approval, bool]:
        """The question about a group, and whether that has to go on record: it is new, or about another pool now.

        It keeps its id when the plan, or a person's override, turns to another pool: whoever answers it answers what it
        asks now.
        """
        for found in self._open.values():
            if (found.group, found.rules) == (group.id, rules):
                if found.pool == pool:
                    return found, False
                self._open[found.id] = replace(found, pool=pool)
                return self._open[found.id], True
        made = Approval(
            id=digest(encode([group.id, rules, now_ms]))[:16],
            group=group.id,
            task=group.name,
            root_run=group.root_run,
            flow_run=group.flow_run,
            rules=rules,
            pool=pool,
            asked_ms=now_ms,
        )
        self._open[made.id] = made
        return made, True

    def rename(self, moved: Mapping[str, frozenset[str]]) -> None:
        """Groups have other names now: new → old ones. Their questions go along."""
        new_of = {old: new for new, olds in moved.items() for old in olds}
        for approval_id, found in self._open.items():
            if (new := new_of.get(found.group)) is not None:
                self._open[approval_id] = replace(found, group=new, known_as=(*found.known_as, found.group))

    def close(self, approval_id: str, state: ApprovalState = "answered") -> Approval:
        """A question is over: as it goes on record."""
        return self._over(replace(self._open.pop(approval_id), state=state))

    def _over(self, closed: Approval) -> Approval:
        self._closed[closed.id] = closed
        if len(self._closed) > CLOSED_KEPT:
            del self._closed[next(iter(self._closed))]
        return closed

    def withdraw(self, waits: Callable[[str], bool]) -> list[Approval]:
        """Close the questions whose tasks no longer wait: as they go on record."""
        return [
            self.close(approval_id, "withdrawn")
            for approval_id, found in list(self._open.items())
            if not waits(found.group)
        ]

    def find(self, said: str) -> list[Approval]:
        """Open questions under the beginning of an id, or of a name that the group has or had."""
        return [found for found in self._open.values() if _named(found, said)]

    def over(self, said: str) -> Approval | None:
        """A question of before under the beginning of its id, or of a name that the group had: the newest."""
        return next((found for found in reversed(self._closed.values()) if _named(found, said)), None)


def _named(approval: Approval, said: str) -> bool:
    return bool(said) and any(name.startswith(said) for name in (approval.id, approval.group, *approval.known_as))


def carry_over(
    answers: Mapping[str, Answers], groups: Mapping[str, Group], moved: Mapping[str, frozenset[str]]
) -> list[dict[str, Any]]:
    """What people said, to be said again under other names, as it goes on record: new name → old names in `moved`.

    An approval is of rules: it goes along for those that say the same as before, so that a rule that was changed asks
    again. Groups that become one keep an answer only when it was given for each of them.
    """
    out: list[dict[str, Any]] = []
    for new, olds in sorted(moved.items()):
        found = [answers.get(old) for old in sorted(olds)]
        if new in answers or (first := found[0]) is None or any(other != first for other in found):
            continue
        before = {v.rule: v for old in sorted(olds) for v in groups[old].verdicts}
        about = {"groups": [new], "carried_from": sorted(olds)}
        if first.override is not None:
            out.append({**about, "override": first.override})
        same = [v.rule for v in groups[new].verdicts if v.rule in first.approved and before.get(v.rule) == v]
        if same and first.approved_by is not None:
            approve = {"answer": "approve", "rules": same, "by": first.approved_by}
            usd = first.approved_usd_micros
            out += [{**about, **approve, "pool": pool, "usd_micros": usd} for pool in first.approved_pools]
        if first.rejected_by is not None:
            out.append({**about, "answer": "reject", "rules": [], "pool": "", "by": first.rejected_by})
    return out
