"""Reference pages that are made from the code: `python -m docs.generate`, and `--check` in the tests."""

from __future__ import annotations

import sys
from pathlib import Path

from agent.model.needs import SAID
from agent.pools.declared import _Budget, _Gpus, _Limits, _Pool, _Selector, _Size
from agent.settings import Settings
from rules.facts import FACTS, LABEL, SELECTS
from rules.schema import OPS, VERBS

HERE = Path(__file__).parent / "reference"


def settings() -> str:
    """Settings, with their defaults."""
    rows = [
        f"| `ORC_{name.upper()}` | {'' if field.default is None else f'`{field.default}`'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return _page(
        "Settings",
        "Each is a variable of the environment or a line of `.env`; the environment wins. All are checked before anything starts.",
        ["setting | default | meaning", *rows],
    )


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
        "A rule file has a list `rules`; each has a `name`, a `reason`, `when` (every test must hold; `any:` is a list of alternatives) and `then`: one verb and the pools it is about.\n\n"
        f"Verbs: {', '.join(f'`{v}`' for v in VERBS)}. `escalate` may say `above_usd`. Comparisons: {', '.join(f'`{o}`' for o in OPS)}; a bare value means `is`. `any` in place of a selector means every pool.\n\n"
        "```yaml\nrules:\n  - name: eu-data-stays\n    reason: the contract with our customer says so\n    when: {region: eu, priority: {not: batch}}\n    then: {require: {label.region: eu}}\n```\n"
    )
    return _page("Rules", text, ["fact | type | meaning", *facts]) + "\n" + _table(["pool selector | values", *selects])


def needs() -> str:
    """What an author may say."""
    meaning = {
        "cpus": "cores kept busy, at least 1", "memory": '`"16 GiB"` or MiB', "gpu": "`required`, `helps` or `no`", "gpus": "how many, where there are some",
        "runtime": "usual runtime; history replaces it", "max_runtime": "longest runtime; what a budget reserves for", "checkpoint_interval": "work lost at most by an interruption",
        "deadline": "on a flow: of the root run, from its expected start", "budget": "a budget of pools.yaml", "interruptible": "may be stopped and run again; not said means no",
        "priority": "`critical`, `normal` or `batch`", "task_class": "the class whose history it shares", "region": "for rules: where its data must stay", "team": "for rules", "labels": "for rules, as `label.NAME`",
    }  # fmt: skip
    text = "`@needs(…)` above `@task` or `@flow`, `with needs(…):` around a submit, `dask.annotate(orc={…})` for plain Dask. The call wins over the task, the task over the flow. `dask.annotate(resources=…)` is honoured beside them."
    return _page("Needs", text, ["need | meaning", *(f"| `{name}` | {meaning[name]} |" for name in SAID)])


def pools() -> str:
    """Fields of pools.yaml."""
    meaning = {
        "market": "`spot` (may be taken away) or `on-demand`", "worker": "size of one worker, below", "price": "dollars an hour of one worker, or steps `[{since, usd_per_hour}]`",
        "workers": "`{min, max}`", "startup": "from asking to the first task; billed; learned later", "min_billing": "the shortest time that is billed", "idle": "an idle worker is kept so long",
        "interruptions_per_hour": "declared hazard of spot; learned later", "labels": "zone, region, instance type, …; rules select by them", "resources": "Dask resources its workers offer",
        "selector": "which live workers belong to it, below; by default the name `POOL-*`", "provider": "`local` launches `dask worker` processes; without one its workers are only observed", "weather": "a local spot pool's trace of capacity and price",
    }  # fmt: skip
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
    assert set(_Gpus.model_fields) == {"count", "model", "emulate"}
    assert set(_Limits.model_fields) == {"min", "max"}
    text = "`pools.yaml` declares worker pools and budgets; the kind people see (gpu, spot, on-demand) follows from market and size. Workers that no pool selects are the pool `default`: observed, unrestricted, counted as the dearest. `orc pools` checks the file."
    return _page("Pools and budgets", text, ["field | meaning", *rows])


def _page(title: str, text: str, rows: list[str]) -> str:
    return f"# {title}\n\n<!-- made by docs/generate.py -->\n\n{text}\n\n{_table(rows)}"


def _table(rows: list[str]) -> str:
    head, *body = rows
    columns = head.count("|") + 1
    return "\n".join([f"| {head} |", "|" + "---|" * columns, *body]) + "\n"


PAGES = {"settings.md": settings, "rules.md": rules, "needs.md": needs, "pools.md": pools}


def main() -> int:
    """Write the pages; with --check, 1 when one is out of date."""
    stale = [name for name, page in PAGES.items() if not (HERE / name).exists() or (HERE / name).read_text() != page()]
    if "--check" in sys.argv:
        print("\n".join(f"docs/reference/{name} is out of date: python -m docs.generate" for name in stale))
        return bool(stale)
    for name in stale:
        (HERE / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main())
