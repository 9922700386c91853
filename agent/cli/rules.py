"""`orc rules`: check them, test them, and see what they did."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from statistics import median_high
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.terminal import say, table
from rules.errors import RuleError

if TYPE_CHECKING:
    from agent.report.rules import RuleDid

rules_app = typer.Typer(help="Rules.", no_args_is_help=True)
_Paths = Annotated[list[Path] | None, typer.Argument(help="files or folders; by default ORC_RULES")]


@rules_app.command("lint")
def rules_lint(paths: _Paths = None) -> None:
    """Check rule files, and load them into the engine."""
    from agent.settings import load
    from rules import schema
    from rules.engine import Engine

    found = schema.load(paths or [load().rule_files()])
    Engine(found)
    for rule in found.rules:
        say(f"{rule.where}: {rule.name} ({rule.verb}): {rule.reason}")
    say(f"{len(found.rules)} rules, digest {found.digest[:12]}")


@rules_app.command("test")
def rules_test(paths: _Paths = None) -> None:
    """Ask the rules about the tables of cases beside them. Exit code 1 when one fails."""
    from rich.text import Text

    from agent.settings import load
    from rules import cases, schema

    wanted = paths or [load().rule_files()]
    tables = cases.tables(wanted)
    if not any(cases_of.cases for cases_of in tables):
        where = ", ".join(map(str, wanted))
        raise RuleError(f"{where}: there are no cases; write them into NAME{schema.CASES} beside NAME.yaml")
    failed = passed = 0
    for cases_of in tables:
        results = cases.run(cases_of)
        wrong = sum(bool(result.differs) for result in results)
        failed, passed = failed + wrong, passed + len(results) - wrong
        rows = [
            [r.case.name, Text("failed", "red") if r.differs else "passed", r.case.where, "; ".join(r.differs)]
            for r in results
        ]
        table(cases_of.path, ["case", "", "at", "what differs"], rows)
    say(f"{passed} passed, {failed} failed")
    if failed:
        raise typer.Exit(1)


@rules_app.command("did")
def rules_did(since: Annotated[str, typer.Option(help="how far back: 7d, 12 h")] = "7d") -> None:
    """What each rule did: decisions, tasks, pools it kept tasks from, questions and their answers."""
    import time

    from agent.cli.context import open_ledger
    from agent.model.units import duration_ms
    from agent.report.rules import did
    from agent.settings import load
    from rules import schema

    settings = load()
    ledger = open_ledger(settings)
    begin = round(time.time() * 1000) - duration_ms(since)
    try:
        names = [rule.name for rule in schema.load([settings.rule_files()]).rules]
    except RuleError as error:
        names = []
        say(f"rules that did nothing are not listed: {error}", style="yellow")
    found = did(ledger, begin, names)
    columns = ["rule", "verb", "decisions", "tasks", "kept from", "of these, best without it", "saved there"]
    columns += ["preferred", "asked", "answered"]
    table(f"what rules did in the last {since}", columns, [_row(rule) for rule in found], {"decisions", "tasks"})
    say(
        "best without it: ranked again from the snapshot on record, for that one decision. Saved there: what a task "
        "would have cost less, summed over those decisions; modelled."
    )


def _row(rule: RuleDid) -> list[object]:
    from agent.model.units import show_ms, show_usd

    best = sum(rule.would_be_best.values())
    answered = [f"{rule.approved} approved"] * bool(rule.approved) + [f"{rule.rejected} rejected"] * bool(rule.rejected)
    answered += [f"{rule.unanswered} open"] * bool(rule.unanswered)
    if rule.answer_ms:
        answered.append(f"after {show_ms(median_high(rule.answer_ms))} (median)")
    return [
        rule.rule,
        rule.verb or "did not speak",
        rule.decisions,
        rule.placements,
        _counts(rule.kept_from),
        _counts(rule.would_be_best),
        show_usd(rule.forgone_usd_micros) if best else "",
        _counts(rule.preferred),
        rule.asked or "",
        ", ".join(answered),
    ]


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{pool} {n}" for pool, n in counts.most_common())
