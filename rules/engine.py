"""Rules run by durable-rules, as a pure function: facts in, verdicts out. The only import of `durable`."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from durable import engine as durable

from rules.facts import FACTS, LABEL
from rules.schema import Rule, RuleSet, Test

#: durable-rules gives up beyond 64 matching rules in one set
_CHUNK = 48
#: the library keeps the sets of all hosts in one table that grows, so building one races with asking another
_LOCK = threading.Lock()
_OPS = {"not": "$neq", "above": "$gt", "at_least": "$gte", "below": "$lt", "at_most": "$lte"}


class Said(NamedTuple):
    """One rule's word."""

    rule: str
    verb: str
    reason: str
    select: tuple[tuple[str, tuple[str, ...]], ...]
    above_usd: str | None


class _Host(durable.Host):  # type: ignore[misc]
    """A host without the library's dispatcher and timer threads, which race with the caller's."""

    def _run(self) -> None:
        return None


class Engine:
    """Evaluates one rule set. Thread-safe; keeps nothing between evaluations. `close` gives its memory back."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules = rules
        self._ids = itertools.count(1)
        self._said: list[Said] = []
        self._error: BaseException | None = None
        self._host = _Host()
        self._asked = [(name, _plain(name), _absent(name)) for name in sorted(rules.facts)]
        self._sets: list[str] = []
        with _LOCK:
            for at in range(0, len(rules.rules), _CHUNK):
                name = f"orc{at}"
                self._host.set_rulesets({name: self._definition(rules.rules[at : at + _CHUNK])})
                self._sets.append(name)

    def evaluate(self, facts: Mapping[str, str | int | bool]) -> tuple[Said, ...]:
        """What every rule that matches says, in the rules' order. Raises RuntimeError when the engine fails."""
        # only what a rule asks for: every fact costs the library time
        posted: dict[str, Any] = {plain: _known(facts.get(name, absent)) for name, plain, absent in self._asked}
        with _LOCK:
            self._said = []
            for name in self._sets:
                # a session of its own for each evaluation, deleted after it: the library keeps at most 1,024
                sid = f"s{next(self._ids)}"
                try:
                    state = self._host.assert_fact(name, {**posted, "sid": sid, "decision": 1})
                    if state and state.get("exception"):
                        raise RuntimeError(f"durable-rules failed on {name}: {state['exception']}")
                finally:
                    self._host.delete_state(name, sid)
            order = {rule.name: at for at, rule in enumerate(self.rules.rules)}
            # a fact that satisfies two alternatives of a rule fires it twice
            return tuple(sorted(dict.fromkeys(self._said), key=lambda said: order[said.rule]))

    def close(self) -> None:
        """Give the library's memory back; the engine cannot be asked any more."""
        with _LOCK:
            for name in self._sets:
                durable.durable_rules_engine.delete_ruleset(self._host.get_ruleset(name)._handle)
            self._sets = []

    def _definition(self, rules: tuple[Rule, ...]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for at, rule in enumerate(rules):
            out[f"r{at}"] = {"all": [{"m": _expression(rule)}], "pri": at + 1, "run": self._action(rule)}
        # a fact that no rule matches raises, so one rule always does
        out["rest"] = {"all": [{"m": {"$ex": {"decision": 1}}}], "pri": len(rules) + 1, "run": lambda c: None}
        return out

    def _action(self, rule: Rule) -> Any:
        said = Said(rule.name, rule.verb, rule.reason, rule.select, rule.above_usd)
        return lambda c: self._said.append(said)


def _expression(rule: Rule) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"$ex": {"decision": 1}}, *(_term(test) for test in rule.all)]
    if rule.any:
        branches = [_and([_term(test) for test in branch]) for branch in rule.any]
        parts.append(branches[0] if len(branches) == 1 else {"$or": branches})
    return _and(parts)


def _and(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return parts[0] if len(parts) == 1 else {"$and": parts}


def _term(test: Test) -> dict[str, Any]:
    name, value = _plain(test.fact), _known(test.value)
    return {name: value} if test.op == "is" else {_OPS[test.op]: {name: value}}


def _plain(fact: str) -> str:
    """A fact's name without the dot, which the library would read as a path."""
    return "label_" + fact.removeprefix(LABEL).encode().hex() if fact.startswith(LABEL) else fact


def _known(value: str | int | bool) -> str | int:
    """Truth as a number, since the library takes 1 and true for equal; the schema keeps texts and numbers apart."""
    return int(value) if isinstance(value, bool) else value


def _absent(fact: str) -> str | int:
    known = FACTS.get(fact)
    return "" if known is None or known.kind is str else 0
