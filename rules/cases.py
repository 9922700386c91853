"""Tables of cases: facts in, verdicts expected out. They test the rules beside them without a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rules.engine import Engine
from rules.facts import UNSAID
from rules.node import Node, RuleError, compose
from rules.schema import CASES, VERBS, RuleSet, Value, files, known_fact, load, typed


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What the rules must say of some facts, no more and no less."""

    name: str
    #: facts that are not those of a task that says nothing
    facts: tuple[tuple[str, Value], ...]
    #: (rule, verb): every verdict expected; without a verb, any
    says: tuple[tuple[str, str | None], ...]
    #: file and line
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The cases of one file, and the rules they test."""

    path: Path
    cases: tuple[Case, ...]
    rules: RuleSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a case."""

    case: Case
    #: what differs, in words; empty when it passed
    differs: tuple[str, ...]


def tables(paths: Iterable[Path]) -> tuple[Table, ...]:
    """Every table of some files, and of the files right in folders. Raises RuleError.

    A table in a rule file tests the rules of that file, `NAME.cases.yaml` those of `NAME.yaml` beside it, and a table
    that stands alone every rule of its folder.
    """
    found = [file for path in paths for file in (sorted(path.glob("[!.]*.yaml")) if path.is_dir() else [path])]
    return tuple(table for file in found if (table := _table(file)) is not None)


def run(table: Table) -> tuple[Result, ...]:
    """Ask the rules about every case."""
    engine = Engine(table.rules)
    return tuple(Result(case=case, differs=_differs(engine, case)) for case in table.cases)


def _differs(engine: Engine, case: Case) -> tuple[str, ...]:
    said = {word.rule: word.verb for word in engine.evaluate({**UNSAID, **dict(case.facts)})}
    expected = dict(case.says)
    return (
        *(f"{rule} said nothing" for rule in expected if rule not in said),
        *(
            f"{rule} says {said[rule]}, not {verb}"
            for rule, verb in case.says
            if verb is not None and said.get(rule, verb) != verb
        ),
        *(f"{rule} ({verb}) spoke too" for rule, verb in said.items() if rule not in expected),
    )


def _table(path: Path) -> Table | None:
    top = compose(path)
    if top is None:
        return None
    fields = top.fields({"rules", "cases"}, set())
    if "cases" not in fields:
        return None
    rules = _rules(path, "rules" in fields)
    known = [rule.name for rule in rules.rules]
    cases = tuple(_case(node, known) for node in fields["cases"].items())
    return Table(path=path, cases=cases, rules=rules)


def _rules(path: Path, has_rules: bool) -> RuleSet:
    if has_rules:
        return load([path])
    beside = path.with_name(path.name.removesuffix(CASES) + ".yaml")
    if path.name.endswith(CASES) and beside.exists():
        return load([beside])
    rules = load(files([path.parent]))
    if not rules.rules:
        raise RuleError(f"{path}: there is no rule to test; put the table beside a rule file")
    return rules


def _case(node: Node, known: Sequence[str]) -> Case:
    body = node.fields({"name", "facts", "says"}, {"name", "says"})
    name = body["name"].text()
    here = {key: Node(value.path, value.node, f"case {name!r}") for key, value in body.items()}
    facts = _facts(here["facts"]) if "facts" in here else ()
    return Case(name=name, facts=facts, says=_says(here["says"], known), where=node.where)


def _facts(node: Node) -> tuple[tuple[str, Value], ...]:
    out = []
    for name, value in node.pairs():
        child = Node(node.path, value, node.what)
        known_fact(child, name)
        out.append((name, typed(child, name)))
    return tuple(out)


def _says(node: Node, known: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    """A list of rules, or a mapping of rules to their verbs."""
    says: list[tuple[str, str | None]] = []
    children = (
        [(rule, Node(node.path, verb, node.what)) for rule, verb in node.pairs()]
        if node.is_mapping
        else [(item.text(), item) for item in node.items()]
    )
    for rule, child in children:
        if rule not in known:
            raise child.error(f"unknown rule {rule!r}; known are {', '.join(known)}")
        if rule in dict(says):
            raise child.error(f"rule {rule!r} is given twice")
        verb = child.text() if node.is_mapping else None
        if verb is not None and verb not in VERBS:
            raise child.error(f"unknown verb {verb!r}; allowed are {', '.join(VERBS)}")
        says.append((rule, verb))
    return tuple(says)
