"""The rules in force: read once, watched for changes, and swapped whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from agent.model import codec
from agent.model.units import usd_micros
from agent.model.verdicts import RuleVerb, Verdict
from agent.processes import atomic_file
from agent.state.groups import Judge
from agent.state.task_specs import Facts
from rules import schema
from rules.engine import Engine

#: files with their time of change (ns) and size; -1 for one that is not there
Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One set of rules, ready to judge."""

    set: schema.RuleSet
    judge: Judge
    #: gives the engine's memory back; nothing can be judged after it
    close: Callable[[], None]

    @property
    def digest(self) -> str:
        """What names them in the ledger."""
        return self.set.digest

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.set.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Files that were changed and are wrong: file, line, rule, and what is allowed."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a swap changes, by the rules' names."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What was seen of the files."""

    #: the files as they were last read, or refused
    read: Fingerprint
    #: the files as they were at the last look
    seen: Fingerprint

    def look(self, now: Fingerprint) -> tuple[Watch, bool]:
        """The next watch, and whether to read: the files differ from those read, and two looks saw them the same.

        A file that is being written is not read, or a half of it would be taken for the whole.
        """
        if now != self.read and now == self.seen:
            return Watch(read=now, seen=now), True
        return Watch(read=self.read, seen=now), False


class Rulebook:
    """The rule files of ORC_RULES, and the rules that are in force."""

    def __init__(self, paths: Sequence[Path], keep: Path | None = None) -> None:
        """Read the files. Raises RuleError when they are wrong and no rules are kept.

        Args:
            paths: files and folders.
            keep: where the rules in force are kept, so that a governor that is started again while a file is wrong
                goes on with them.
        """
        self.paths, self._keep = tuple(paths), keep
        #: why the files are not in force; "" when they are
        self.wrong = ""
        now = fingerprint(self.paths)
        self._watch = Watch(read=now, seen=now)
        try:
            self.rules = made(schema.load(self.paths))
        except schema.RuleError as error:
            kept = self._kept()
            if kept is None:
                raise
            self.rules, self.wrong = kept, str(error)
        else:
            self.keep()

    def look(self) -> Rules | Refused | None:
        """Once a second: a set to put into force, a refusal, or nothing new."""
        self._watch, read = self._watch.look(fingerprint(self.paths))
        if not read:
            return None
        try:
            found = schema.load(self.paths)
        except schema.RuleError as error:
            return self._refused(str(error))
        if not found.rules and self.rules.count:
            # a folder that is being filled looks so, and every `forbid` would be lifted
            where = ", ".join(map(str, self.paths))
            return self._refused(f"{where}: no rule is left; to run without rules, start the governor again")
        self.wrong = ""
        return made(found) if found.digest != self.rules.digest else None

    def swap(self, rules: Rules) -> None:
        """Put a set into force; the one before can no longer judge."""
        old, self.rules = self.rules, rules
        self.keep()
        old.close()

    def change(self, new: Rules) -> Change:
        """What the new set changes."""
        old, now = ({rule.name: _content(rule) for rule in x.set.rules} for x in (self.rules, new))
        return Change(
            added=tuple(name for name in now if name not in old),
            removed=tuple(name for name in old if name not in now),
            changed=tuple(name for name in now if name in old and now[name] != old[name]),
        )

    def keep(self) -> None:
        """Write the rules in force down."""
        if self._keep is not None:
            self._keep.parent.mkdir(parents=True, exist_ok=True)
            atomic_file.write(self._keep, codec.encode(self.rules.set))

    def _kept(self) -> Rules | None:
        if self._keep is None or not self._keep.exists():
            return None
        try:
            return made(codec.decode(schema.RuleSet, self._keep.read_bytes()))
        except ValidationError:
            # of another version: as good as none
            return None

    def _refused(self, why: str) -> Refused:
        self.wrong = why
        return Refused(why=why)


def fingerprint(paths: Sequence[Path]) -> Fingerprint:
    """The rule files of some paths as they are now."""
    out = []
    for file in schema.files(paths):
        try:
            stat = file.stat()
        except OSError:
            out.append((str(file), -1, -1))
        else:
            out.append((str(file), stat.st_mtime_ns, stat.st_size))
    return tuple(out)


def made(rules: schema.RuleSet) -> Rules:
    """A set with an engine of its own."""
    engine = Engine(rules)

    def judge(facts: Facts) -> tuple[Verdict, ...]:
        return tuple(
            Verdict(
                rule=said.rule,
                verb=cast(RuleVerb, said.verb),
                reason=said.reason,
                select=said.select,
                above_usd_micros=usd_micros(said.above_usd) if said.above_usd is not None else None,
            )
            for said in engine.evaluate(facts)
        )

    return Rules(set=rules, judge=judge, close=engine.close)


def _content(rule: schema.Rule) -> tuple[object, ...]:
    """A rule but for the place it stands at."""
    return rule.reason, rule.verb, rule.all, rule.any, rule.select, rule.above_usd
