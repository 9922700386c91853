"""Reading rule files. Every error names the file, the line, the rule and what is allowed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from rules.facts import FACTS, LABEL, SELECTS, Fact, fact
from rules.node import Node, compose
from rules.node import RuleError as RuleError

Op = Literal["is", "not", "above", "at_least", "below", "at_most"]
OPS: tuple[Op, ...] = ("is", "not", "above", "at_least", "below", "at_most")
VERBS = ("forbid", "require", "prefer", "escalate")
Value = str | int | bool
#: a file whose name ends so is the table of cases of the rule file beside it
CASES = ".cases.yaml"


@dataclass(frozen=True, slots=True)
class Test:
    """One comparison of a fact with a value."""

    fact: str
    op: Op
    value: Value


@dataclass(frozen=True, slots=True)
class Rule:
    """When every test of `all` holds, and one of each alternative in `any`, the verb is said of the selected pools."""

    name: str
    reason: str
    verb: str
    all: tuple[Test, ...]
    #: alternatives: each an OR of ANDs
    any: tuple[tuple[Test, ...], ...]
    select: tuple[tuple[str, tuple[str, ...]], ...]
    above_usd: str | None
    where: str


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules in the order they were read, and the digest that names them in the ledger."""

    rules: tuple[Rule, ...]
    digest: str

    @property
    def facts(self) -> frozenset[str]:
        """Facts that any rule reads: what a placement group must not mix."""
        return frozenset(
            test.fact for rule in self.rules for test in (*rule.all, *(t for branch in rule.any for t in branch))
        )


def load(paths: Iterable[Path]) -> RuleSet:
    """Rules of files, and of every rule file in folders, in order of their names. Raises RuleError."""
    rules = [rule for file in files(paths) for rule in _file(file)]
    seen: dict[str, str] = {}
    for rule in rules:
        if rule.name in seen:
            raise RuleError(
                f"{rule.where}: rule {rule.name!r} is already defined at {seen[rule.name]}; give it another name"
            )
        seen[rule.name] = rule.where
    body = json.dumps([[r.name, r.reason, r.verb, repr(r.all), repr(r.any), r.select, r.above_usd] for r in rules])
    return RuleSet(tuple(rules), hashlib.sha256(body.encode()).hexdigest())


def files(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The rule files of some paths, in the order they are read.

    Of a folder: those right in it, without tables of cases, and without hidden files, which editors leave there.
    """
    out: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        out += [
            file for file in found if file == path or (not file.name.startswith(".") and not file.name.endswith(CASES))
        ]
    return tuple(out)


def _file(path: Path) -> list[Rule]:
    root = compose(path)
    if root is None:
        return []
    top = root.fields({"rules", "cases"}, set())
    if not top:
        raise root.error("'rules' is missing")
    return [_rule(node) for node in top["rules"].items()] if "rules" in top else []


def _rule(node: Node) -> Rule:
    body = node.fields({"name", "reason", "when", "then"}, {"name", "reason", "then"})
    name = body["name"].text()
    here = {key: Node(value.path, value.node, f"rule {name!r}") for key, value in body.items()}
    tests, branches = _when(here["when"]) if "when" in here else ((), ())
    verbs = here["then"].fields(set(VERBS), set())
    if len(verbs) != 1:
        raise here["then"].error(f"exactly one verb of {', '.join(VERBS)} is expected")
    verb, target = next(iter(verbs.items()))
    select, above = _select(target, verb)
    return Rule(name, here["reason"].text(), verb, tests, branches, select, above, node.where)


def _when(node: Node) -> tuple[tuple[Test, ...], tuple[tuple[Test, ...], ...]]:
    tests: list[Test] = []
    branches: tuple[tuple[Test, ...], ...] = ()
    for key, value in node.pairs():
        child = Node(node.path, value, node.what)
        if key == "any":
            branches = tuple(
                tuple(t for k, v in item.pairs() for t in _tests(Node(item.path, v, item.what), k))
                for item in child.items()
            )
            if not branches or not all(branches):
                raise child.error("'any' needs at least one alternative, each with a test")
        else:
            tests += _tests(child, key)
    return tuple(tests), branches


def _tests(node: Node, name: str) -> list[Test]:
    known = known_fact(node, name)
    if not node.is_mapping:
        return [Test(name, "is", typed(node, name))]
    out: list[Test] = []
    for op, value in node.pairs():
        if op not in OPS:
            raise node.error(f"unknown comparison {op!r} of {name}; allowed are {', '.join(OPS)}")
        if op not in ("is", "not") and known.kind is not int:
            raise node.error(f"{name} is {_type(known.kind)} and cannot be compared by {op!r}; use 'is' or 'not'")
        out.append(Test(name, op, typed(Node(node.path, value, node.what), name)))
    return out


def known_fact(node: Node, name: str) -> Fact:
    """The fact of that name. Raises RuleError at the node."""
    known = fact(name)
    if known is None:
        raise node.error(f"unknown fact {name!r}; known are {', '.join(FACTS)} and {LABEL}NAME")
    return known


def typed(node: Node, name: str) -> Value:
    """The node's value, when it is one the fact can have. Raises RuleError."""
    known, value = known_fact(node, name), node.value()
    if type(value) is not known.kind:
        raise node.error(f"{name} is {_type(known.kind)}, not {value!r}")
    if known.values and value not in known.values:
        raise node.error(f"{name} is one of {', '.join(known.values)}, never {value!r}")
    if isinstance(value, int) and abs(value) > 2**53:
        raise node.error(f"{value} is too large to compare exactly")
    return cast(Value, value)


def _type(kind: type) -> str:
    return {str: "a text", int: "a whole number", bool: "true or false"}[kind]


def _select(node: Node, verb: str) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], str | None]:
    if node.value() == "any":
        return (), None
    above: str | None = None
    out: list[tuple[str, tuple[str, ...]]] = []
    for field, value in node.pairs():
        child = Node(node.path, value, node.what)
        raw = child.value()
        if field == "above_usd":
            if verb != "escalate":
                raise child.error("above_usd belongs to 'escalate'")
            if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw < 1e12:
                raise child.error(f"above_usd must be a number of dollars, not {raw!r}")
            above = str(raw)
            continue
        if field not in SELECTS and not (field.startswith(LABEL) and len(field) > len(LABEL)):
            raise child.error(f"a pool has no {field!r}; select by {', '.join(SELECTS)} or {LABEL}NAME")
        values = tuple(str(v) for v in raw) if isinstance(raw, list) else (str(raw),)
        allowed = SELECTS.get(field, ())
        for one in values:
            if allowed and one not in allowed:
                raise child.error(f"unknown {field} {one!r}; allowed are {', '.join(allowed)}")
        out.append((field, values))
    return tuple(out), above
