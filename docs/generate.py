"""Reference pages that are made from the code: `python -m docs.generate`, and `--check` in the tests."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from agent.cli.main import app
from agent.ledger import kinds
from agent.ledger import schema as t
from agent.ledger.ledger import Ledger
from agent.mind.projection import LABELS, Projection, project
from agent.model.leases import Lease
from agent.model.needs import SAID
from agent.model.outcomes import Result
from agent.model.plans import Decision, Option
from agent.model.records import Decided, Ended, Entry, FlowRun, Placed
from agent.pools.declared import _Budget, _Gpus, _Limits, _Pool, _Selector, _Size
from agent.settings import Settings
from agent.worker.settings import WorkerSettings
from rules.facts import FACTS, LABEL, SELECTS, UNSAID
from rules.schema import OPS, VERBS

HERE = Path(__file__).parent / "reference"


def settings() -> str:
    """Settings, with their defaults."""
    every = [(variable, field) for variable, _, field in Settings.variables()]
    every += [(WorkerSettings.variable(name), field) for name, field in WorkerSettings.model_fields.items()]
    rows = [
        f"| `{variable}` | {'' if field.default is None else f'`{field.default}`'} | {field.description} |"
        for variable, field in every
    ]
    return _page(
        "Settings",
        "Each is a variable of the environment or a line of `.env`; the environment wins. All are checked before "
        "anything starts. A `.env`, a `.orc` or a folder `rules` that stands where you stand and that somebody else "
        "wrote or could change is refused; name it (`ORC_ENV_FILE`, `ORC_HOME`, `ORC_RULES`) if it is what you want.",
        ["setting | default | meaning", *rows],
    )


def env_example() -> str:
    """`.env.example`: every setting with its default, to be uncommented. A line that is not set is not said."""
    lines = [
        "# Every setting of ORC, with its default. Copy to .env, uncomment and change what you need; the "
        "environment wins over .env."
    ]
    for variable, _, field in Settings.variables():
        default = "" if field.default is None else field.default
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        lines += ["", f"# {field.description}", f"# {variable}={shown}"]
    return "\n".join(lines) + "\n"


def rules() -> str:
    """Facts, comparisons, verbs, selectors."""
    facts = [
        f"| `{name}` | {fact.kind.__name__}{': ' + ', '.join(fact.values) if fact.values else ''} | {fact.meaning} |"
        for name, fact in FACTS.items()
    ]
    facts.append(f"| `{LABEL}NAME` | str | a label of the task's needs; empty when it has none |")
    selects = [f"| `{name}` | {', '.join(values)} |" for name, values in SELECTS.items()] + [
        f"| `{LABEL}NAME` | a label of the pool |"
    ]
    text = (
        "`ORC_RULES` is a rule file or a folder. Of a folder, the `*.yaml` files right in it are read, in order of "
        "their names; tables of cases and hidden files are not. What is in force is watched: see [write a "
        "rule](../how-to/write-a-rule.md#when-it-takes-effect).\n\n"
        "A rule file has a list `rules`; each has a `name`, a `reason`, `when` (every test must hold; `any:` is a "
        "list of alternatives) and `then`: one verb and the pools it is about.\n\n"
        f"Verbs: {', '.join(f'`{v}`' for v in VERBS)}. `escalate` may say `above_usd`. Comparisons: "
        f"{', '.join(f'`{o}`' for o in OPS)}; a bare value means `is`. `any` in place of a selector means every "
        f"pool. A number may be at most 2^53 either side of zero: the engine holds numbers as doubles, in which "
        f"larger integers run into each other, so a rule with one is refused rather than matched against its "
        f"neighbour. Sizes and sums stay far below (2^53 bytes are 8 PiB).\n\n"
        "```yaml\nrules:\n  - name: eu-data-stays\n    reason: the contract with our customer says so\n"
        "    when: {region: eu, priority: {not: batch}}\n    then: {require: {label.region: eu}}\n```\n"
    )
    return (
        _page("Rules", text + "\n## Facts", ["fact | type | meaning", *facts])
        + "\n## Pool selectors\n\nA selector names fields; a pool is selected when every field is among the values "
        "given (one value, or a list).\n\n" + _table(["pool selector | values", *selects]) + "\n## Cases\n\n" + _CASES
    )


_CASES = f"""A rule file may have a list `cases`, or a file `NAME.cases.yaml` beside `NAME.yaml` has it. Each case \
has a `name`, `facts`, and `says`: every rule that must speak, and no other, as a list or with its verb.

```yaml
cases:
  - name: data of the EU stays there
    facts: {{region: eu}}
    says: {{eu-data-stays: require}}
  - name: batch work is left alone
    facts: {{region: eu, priority: batch}}
    says: []
```

Facts that a case does not name are those of a task that says nothing: \
{", ".join(f"`{name}` is `{value}`" for name, value in UNSAID.items())}; the others are empty, zero or false. \
`NAME.cases.yaml` tests the rules of `NAME.yaml` alone, so that another file's rules do not disturb it; a table \
without such a file beside it tests every rule of its folder. `orc rules test` exits with 1 when a case fails, and \
with 2 when a file is wrong.
"""


def needs() -> str:
    """What an author may say."""
    meaning = {
        "cpus": "cores kept busy, at least 1",
        "memory": '`"16 GiB"` or MiB',
        "gpu": "`required`, `helps` or `no`",
        "gpus": "how many, where there are some",
        "runtime": "usual runtime; history replaces it",
        "max_runtime": "longest runtime; what a budget reserves for",
        "checkpoint_interval": "work lost at most by an interruption",
        "deadline": "on a flow: of the root run, from its expected start; a tag `deadline:2 h` of the run or its "
        "deployment says it in its place",
        "budget": "a budget of pools.yaml",
        "interruptible": "may be stopped and run again; not said means no",
        "priority": "`critical`, `normal` or `batch`",
        "task_class": "the class whose history it shares",
        "region": "for rules: where its data must stay",
        "team": "for rules",
        "labels": "for rules, as `label.NAME`",
    }
    text = (
        "`@needs(…)` above `@task` or `@flow`, `with needs(…):` around a submit, `dask.annotate(orc={…})` for plain "
        "Dask. The call wins over the task, the task over the flow. `dask.annotate(resources=…)` is honoured beside "
        "them."
    )
    return _page("Needs", text, ["need | meaning", *(f"| `{name}` | {meaning[name]} |" for name in SAID)])


def pools() -> str:
    """Fields of pools.yaml."""
    meaning = {
        "market": "`spot` (may be taken away) or `on-demand`",
        "worker": "size of one worker, below",
        "price": "dollars an hour of one worker, steps `[{since, usd_per_hour}]`, or [a "
        "name](../how-to/price-a-pool.md#by-name)",
        "workers": "`{min, max}`; from none, workers are launched for tasks, and for whoever waits for workers "
        "(`client.wait_for_workers`, `scatter`)",
        "startup": "from asking to the first task; billed; learned later",
        "min_billing": "the shortest time that is billed",
        "idle": "an idle worker is kept so long; one is idle when nothing runs there, whoever sent it",
        "interruptions_per_hour": "declared hazard of spot; learned later",
        "labels": "zone, region, instance type, …; rules select by them",
        "resources": "Dask resources its workers offer",
        "selector": "which live workers belong to it, below; by default the name `POOL-*`",
        "provider": "`local` launches `dask worker` processes; without one its workers are only observed",
        "spot_trace": "the file of a local spot pool's trace of capacity and price",
    }
    rows = [f"| `{name}` | {meaning[name]} |" for name in _Pool.model_fields]
    rows += [
        f"| `worker.{name}` | {m} |"
        for name, m in zip(
            _Size.model_fields,
            ("cores", "memory", "tasks at a time; as many as cpus", "`{count, model, emulate}`"),
            strict=True,
        )
    ]
    rows += [
        f"| `selector.{name}` | {m} |"
        for name, m in zip(
            _Selector.model_fields,
            (
                "glob on the worker's name",
                "glob on its host",
                "least amounts of Dask resources",
                "exact number of threads",
            ),
            strict=True,
        )
    ]
    rows += [
        f"| `budgets.NAME.{name}` | {m} |"
        for name, m in zip(
            _Budget.model_fields, ("the sum in dollars", "reserved for tasks that say no max_runtime"), strict=True
        )
    ]
    rows.append("| `shares.TEAM` | weight of the team's share of the workers; 1 for teams that are not named |")
    assert set(_Gpus.model_fields) == {"count", "model", "emulate"}
    assert set(_Limits.model_fields) == {"min", "max"}
    text = (
        "`pools.yaml` declares worker pools and budgets; the kind people see (gpu, spot, on-demand) follows from "
        "market and size. Workers that no pool selects are the pool `default`: observed, unrestricted, counted as the "
        "dearest. `orc pools` checks the file."
    )
    return _page("Pools and budgets", text, ["field | meaning", *rows])


def commands() -> str:
    """Every command of `orc`, from the command line itself."""
    made = typer.main.get_command(app)
    lines = [
        "# Commands",
        "<!-- made by docs/generate.py -->",
        "An error is one message on standard error and exit code 2. Names of tasks and whatever else comes from "
        "others is shown as plain text: a character that would do something to the terminal is shown as `\\x1b` or "
        "`\\n`. `orc COMMAND --help` says the same as this page. A run is named by its id or the beginning of it.",
    ]
    for name, command in _commands("orc", made):
        arguments = [x for x in command.params if x.param_type_name == "argument"]
        options = [x for x in command.params if x.param_type_name == "option"]
        usage = " ".join([name, *(_shown(x) for x in arguments), *(["[OPTIONS]"] if options else [])])
        lines += [f"## {name}", f"`{usage}`", (command.help or "").strip()]
        rows = [_parameter(x) for x in (*arguments, *options)]
        if rows:
            lines.append(_table(["argument or option | meaning | default", *rows]).rstrip())
    return "\n\n".join(lines) + "\n"


def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    for child, found in getattr(command, "commands", {}).items():
        if hasattr(found, "commands"):
            yield from _commands(f"{name} {child}", found)
        else:
            yield f"{name} {child}", found


def _shown(argument: Any) -> str:
    name = f"{argument.name.upper()}{' …' if argument.nargs == -1 else ''}"
    return name if argument.required else f"[{name}]"


def _parameter(found: Any) -> str:
    name = ", ".join(found.opts) if found.param_type_name == "option" else found.name.upper()
    default = found.default
    shown = "" if default is None or default == "" or default is False or callable(default) else f"`{default}`"
    needed = " (required)" if found.required else ""
    return f"| `{name}`{needed} | {getattr(found, 'help', None) or ''} | {shown} |"


def ledger() -> str:
    """Tables of the ledger, from its schema."""
    meaning = {
        "orc_record": "the chain: one record for each commit, with the SHA-256 over the record before, these "
        "columns and the body",
        "orc_decision": "a decision: its run, team, task class, pool and verb; its body (every option with its "
        "arithmetic, every verdict) is a part",
        "orc_placement": "one task sent to a pool, by its Dask key, with the placements whose results it takes in",
        "orc_outcome": "what became of a placement: result, lease, start, runtime, its part of the worker's price; "
        "where it ran when not in the decision's pool, what a checkpoint spared it, items of a chunk",
        "orc_lease": "a worker's life: asked, granted (billing starts), ready, ended, why in words and what ended "
        "it, price steps, cost",
        "orc_budget": "limits, what is reserved, spent and overrun",
        "orc_reservation": "what a placement reserves of a budget, and what was spent of it",
        "orc_part": "content by its digest: parts of snapshots, bodies of decisions",
        "orc_run": "flow runs that had tasks here, with their root, team and trace; the empty one is plain Dask",
        "orc_chain": "one row for each scheduler: who may write, its epoch, when it was last seen, the number of "
        "the last record",
        "orc_cursor": "how far a follower has read",
        "orc_version": f"version of the tables; this one is {t.VERSION}",
    }
    assert set(meaning) == set(t.metadata.tables)
    rows = [
        f"| `{name}` | {', '.join(f'`{c}`' for c in [x.name for x in t.metadata.tables[name].columns])} | {text} |"
        for name, text in meaning.items()
    ]
    text = f"""One chain for each scheduler, one writer (the governor whose epoch it holds), one durable commit for \
each plan *before* its instructions are sent. SQLite (write-ahead log, `synchronous=FULL`) in `ORC_HOME/ledger.db`, \
or [PostgreSQL](../how-to/use-postgresql.md) by `ORC_LEDGER_URL`. Times are Unix milliseconds, money is micro-dollars.

A record's body holds a digest over its decisions, placements, outcomes and runs, the head of the snapshot with the \
parts that changed, and the digest of the plan. `orc ledger verify` checks the chain and the rows; `--replay` puts \
each snapshot together again, plans it and compares. Records of another planner's version are counted, not compared. \
A record that cannot be read is named, and so are the plans behind it that cannot be made again; whoever reads the \
ledger (commands, reports, the mind) names it and goes on. Leases and budgets are projections that later records \
change; they are not covered by the digest.

Whose work something is stands where it is true: team on the decision and the run, root run and trace on the run. A \
record holds the work of many runs; its own columns of those names are empty, and kept because older records hash them.

Whoever opens a ledger of an older version brings its tables up to date first (Alembic, in one transaction, under a \
lock); a ledger of a newer version is refused, and nothing is changed. `orc_revision` is Alembic's own table.

No task parameter and no result is ever written: the ledger knows names, sizes and times.

## Kinds of records

{_table(["kind | what it says", *(f"| `{kind}` | {what} |" for kind, what in kinds.KINDS.items())])}
Those from `{kinds.ANSWER}` to `{kinds.RESTART}` hold notes; each stands alone or with others of its kind and author. \
In older ledgers all notes stand under one kind, `{kinds.SAID}`; whoever reads them gets them apart.

## Results of a placement

{", ".join(f"`{result}`" for result in t.RESULT_CODE)}.

## Tables"""
    return _page("The ledger", text, ["table | columns | content", *rows])


_LABELS = {
    "OrcFlow": "a flow, by its name",
    "OrcFlowRun": "a flow run, by Prefect's id",
    "OrcTask": "a task, by its Dask key; `task_run` is Prefect's id of it",
    "OrcAttempt": "one placement of a task and what became of it",
    "OrcDecision": "why tasks were placed so",
    "OrcPool": "a pool",
    "OrcLease": "a worker's life",
    "OrcAsset": "a dataset, graph or model that a task read or wrote, by its address",
}
_RELATIONS = {
    "ORC_OF_FLOW": "the run's flow",
    "ORC_PART_OF": "the root run it belongs to",
    "ORC_IN_RUN": "the task's flow run",
    "ORC_OF_TASK": "the attempt's task",
    "ORC_AFTER": "an attempt whose result it takes in; at most 50",
    "ORC_DECIDED_BY": "the attempt's decision",
    "ORC_FOR_RUN": "the decision's flow run",
    "ORC_CONSIDERED": "a pool it considered: rank, whether it was chosen, why not, expected cost",
    "ORC_RAN_ON": "the lease it ran on",
    "ORC_OF_POOL": "the lease's pool",
    "ORC_READ": "what it read",
    "ORC_WROTE": "what it wrote",
}


def graph() -> str:
    """Labels and relations of the graph of the run, from a projection of a small ledger."""
    drawn = _drawn()
    found = {label: sorted({name for p in rows.values() for name in p}) for label, rows in drawn.nodes.items()}
    assert set(found) == set(LABELS) == set(_LABELS)
    assert {type for _, type, _ in drawn.relations} == set(_RELATIONS)
    nodes = [
        f"| `{label}` | {', '.join(f'`{name}`' for name in ('id', *found[label]))} | {_LABELS[label]} |"
        for label in LABELS
    ]
    relations = []
    for (start, type, end), pairs in sorted(drawn.relations.items(), key=lambda x: list(_RELATIONS).index(x[0][1])):
        names = ", ".join(f"`{name}`" for name in sorted({name for p in pairs.values() for name in p}))
        relations.append(f"| `(:{start})-[:{type}]->(:{end})` | {names} | {_RELATIONS[type]} |")
    text = (
        "The mind projects the ledger onto a graph: what ran where and why, with lineage. It is at `ORC_GRAPH_URL`, "
        "else in the embedded server of `orc up`. Queries: [ask the graph of the "
        "run](../how-to/ask-the-graph-of-the-run.md).\n\n"
        "Every node has a unique `id`. An id that is only unique for one scheduler begins with the scheduler's name "
        "in the ledger. `OrcCursor` (one node a scheduler, `seq`) says how far the projection has read. Times are "
        "Unix milliseconds, money is micro-dollars.\n\n## Nodes"
    )
    return (
        _page("The graph of the run", text, ["label | properties | what it is", *nodes])
        + "\n## Relations\n\n"
        + _table(["relation | properties | what it says", *relations])
    )


def _drawn() -> Projection:
    """A projection in which every label, relation and property occurs."""
    option = Option(pool="spot", kind="spot")
    decision = Decision(
        group="g",
        task_class="c",
        name="n",
        root_run="root",
        flow_run="run",
        verb="bind",
        pool="spot",
        reason="",
        options=(option,),
    )
    lineage = (("reads", "dataset", "a"), ("writes", "model", "b"))
    with tempfile.TemporaryDirectory() as folder:
        made = Ledger(f"sqlite:///{folder}/ledger.db", "s")
        made.acquire_lease("docs", 0, 0)
        made.append(
            Entry(
                kind="round", at_ms=0, runs=[FlowRun(no=1, flow_run="run", root_run="root", flow="f")],
                decisions=[Decided(id=1, run=1, decision=decision)],
                placements=[Placed(id=1, decision=1, key="a"), Placed(id=2, decision=1, key="b", upstream="1")],
                outcomes=[Ended(placement=1, result=Result.DONE, lease=1, lineage=lineage)],
                leases=[Lease(id=1, pool="spot", kind="spot", worker="w", asked_ms=0, cause="", price="{}")],
            )
        )  # fmt: skip
        drawn = project(made, made.records())
        made.close()
    return drawn


def _page(title: str, text: str, rows: list[str]) -> str:
    return f"# {title}\n\n<!-- made by docs/generate.py -->\n\n{text}\n\n{_table(rows)}"


def _table(rows: list[str]) -> str:
    head, *body = rows
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|" + "---|" * columns, *body]) + "\n"


PAGES = {
    "settings.md": settings,
    "rules.md": rules,
    "needs.md": needs,
    "pools.md": pools,
    "commands.md": commands,
    "ledger.md": ledger,
    "graph.md": graph,
    "../../.env.example": env_example,
}


def main() -> int:
    """Write the pages; with --check, 1 when one is out of date."""
    stale = [name for name, page in PAGES.items() if not (HERE / name).exists() or (HERE / name).read_text() != page()]
    if "--check" in sys.argv:
        print("\n".join(f"{(HERE / name).resolve()} is out of date: python -m docs.generate" for name in stale))
        return bool(stale)
    for name in stale:
        (HERE / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
