"""Rule files: what they mean and how they are refused."""

from __future__ import annotations

import psutil
import pytest
from typer.testing import CliRunner

from agent.cli.rules import rules_app
from agent.model.needs import Needs
from agent.state import task_specs as specs
from agent.state.task_specs import TaskSpec
from harness.processes import ROOT
from rules import cases
from rules.engine import Engine
from rules.facts import FACTS, UNSAID
from rules.schema import RuleError, load


def rule(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(f"rules:\n  - name: r\n    reason: because\n{text}")
    return file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "    when: {urgency: 1}\n    then: {forbid: any}\n",
            r"r.yaml:4: rule 'r': unknown fact 'urgency'; known are task_class",
        ),
        ("    when: {cpus: two}\n    then: {forbid: any}\n", "cpus is a whole number, not 'two'"),
        (
            "    when: {priority: high}\n    then: {forbid: any}\n",
            "priority is one of critical, normal, batch, never 'high'",
        ),
        ("    when: {team: {above: 1}}\n    then: {forbid: any}\n", "team is a text and cannot be compared by 'above'"),
        (
            "    when: {cpus: {over: 1}}\n    then: {forbid: any}\n",
            "unknown comparison 'over'.*allowed are is, not, above",
        ),
        (
            "    then: {forbid: {market: cheap}}\n",
            r"r.yaml:4: rule 'r': unknown market 'cheap'; allowed are spot, on-demand",
        ),
        (
            "    then: {forbid: {colour: red}}\n",
            "a pool has no 'colour'; select by kind, market, pool, gpu_model or label.NAME",
        ),
        ("    then: {allow: any}\n", "unknown field 'allow'; allowed are escalate, forbid, prefer, require"),
        ("    then: {forbid: any, prefer: any}\n", "exactly one verb"),
        ("    then: {forbid: {above_usd: 3}}\n", "above_usd belongs to 'escalate'"),
        ("    then: {escalate: {above_usd: .nan}}\n", "must be a number of dollars"),
        ("    when: {any: []}\n    then: {forbid: any}\n", "needs at least one alternative"),
        ("    when: {cpus: 1, cpus: 2}\n    then: {forbid: any}\n", "'cpus' is given twice"),
        ("", "'then' is missing"),
        ("    then: {forbid: any\n", "not YAML"),
    ],
)
def test_a_wrong_rule_is_refused_with_file_line_rule_and_what_is_allowed(tmp_path, text, says):
    with pytest.raises(RuleError, match=says):
        load([rule(tmp_path, text)])


def test_two_rules_of_one_name_are_refused_with_both_places(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "rules:\n  - {name: r, reason: x, then: {forbid: any}}\n  - {name: r, reason: y, then: {forbid: any}}\n"
    )
    with pytest.raises(RuleError, match=r"a.yaml:3: rule 'r' is already defined at .*a.yaml:2"):
        load([tmp_path])


def test_the_shipped_rules_say_what_they_promise():
    engine = Engine(load([ROOT / "rules"]))

    def names(**facts):
        return {said.rule for said in engine.evaluate({"gpu": "helps", **facts})}

    assert "critical-never-on-spot" in names(priority="critical")
    assert "critical-never-on-spot" not in names(priority="normal")
    assert "gpu-only-where-it-helps" in names(gpu="no")
    assert "data-stays-in-the-eu" in names(region="eu")
    assert "twice-preempted-leaves-spot" in names(preemptions=2)
    assert "twice-preempted-leaves-spot" not in names(preemptions=1)
    assert "batch-prefers-spot" in names(priority="batch", interruptible=True)


def test_labels_and_alternatives(tmp_path):
    engine = Engine(
        load(
            [
                rule(
                    tmp_path,
                    '    when: {label.pii: "true", any: [{cpus: {above: 2}}, {team: ml, hour: {below: 6}}]}\n'
                    "    then: {forbid: any}\n",
                )
            ]
        )
    )
    assert not engine.evaluate({"label.pii": "true"})
    assert engine.evaluate({"label.pii": "true", "cpus": 3})
    assert engine.evaluate({"label.pii": "true", "team": "ml", "hour": 5})
    assert not engine.evaluate({"label.pii": "1", "cpus": 3})


def test_a_folder_is_read_without_its_tables_of_cases_and_without_what_editors_leave(tmp_path):
    rule(tmp_path, "    then: {forbid: any}\n")
    (tmp_path / "r.cases.yaml").write_text("cases: [{name: x, says: [r]}]")
    (tmp_path / ".#r.yaml").symlink_to("nowhere")
    (tmp_path / "alone.yaml").write_text("cases: [{name: y, says: [r]}]")
    assert [rule.name for rule in load([tmp_path]).rules] == ["r"]
    assert [[case.name for case in table.cases] for table in cases.tables([tmp_path])] == [["y"], ["x"]]


@pytest.mark.parametrize("folder", ["rules", "rules/examples"])
def test_the_shipped_rules_pass_their_cases(folder):
    tables = cases.tables([ROOT / folder])
    assert [(r.case.where, r.differs) for table in tables for r in cases.run(table) if r.differs] == []
    tested = {name for table in tables for case in table.cases for name, _ in case.says}
    assert tested == {rule.name for rule in load([ROOT / folder]).rules}


def test_the_examples_go_beside_the_default_rules():
    assert len(load([ROOT / "rules", ROOT / "rules/examples"]).rules) > len(load([ROOT / "rules"]).rules)


def test_a_case_fails_with_what_is_missing_what_is_too_much_and_what_is_another_verb(tmp_path):
    rule(tmp_path, "    when: {team: ml}\n    then: {forbid: any}\n")
    (tmp_path / "r.cases.yaml").write_text(
        """
cases:
  - {name: missing, says: [r]}
  - {name: too much, facts: {team: ml}, says: []}
  - {name: verb, facts: {team: ml}, says: {r: prefer}}
  - {name: right, facts: {team: ml}, says: {r: forbid}}
"""
    )
    (table,) = cases.tables([tmp_path / "r.cases.yaml"])
    assert [r.differs for r in cases.run(table)] == [
        ("r said nothing",),
        ("r (forbid) spoke too",),
        ("r says forbid, not prefer",),
        (),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "{name: x, facts: {urgency: 1}, says: []}",
            r"r.cases.yaml:1: case 'x': unknown fact 'urgency'; known are task_class",
        ),
        ("{name: x, facts: {cpus: two}, says: []}", "case 'x': cpus is a whole number, not 'two'"),
        ("{name: x, facts: {gpu: maybe}, says: []}", "gpu is one of required, helps, no, never 'maybe'"),
        ("{name: x, says: [q]}", "case 'x': unknown rule 'q'; known are r"),
        ("{name: x, says: {r: allow}}", "unknown verb 'allow'; allowed are forbid"),
        ("{name: x, says: [r, r]}", "rule 'r' is given twice"),
        ("{name: x}", "'says' is missing"),
        ("{name: x, expects: []}", "unknown field 'expects'; allowed are facts, name, says"),
        ("{name: x, facts: {cpus: !q 1}, says: []}", "not a value"),
    ],
)
def test_a_wrong_case_is_refused_with_file_line_case_and_what_is_allowed(tmp_path, text, says):
    rule(tmp_path, "    then: {forbid: any}\n")
    (tmp_path / "r.cases.yaml").write_text(f"cases: [{text}]")
    with pytest.raises(RuleError, match=says):
        cases.tables([tmp_path])


def test_a_case_begins_from_the_facts_of_a_task_that_says_nothing():
    plain = specs.facts(TaskSpec(number=0, name="x", task_class="x", needs=Needs()), 0, 0, 0, 0)
    said = {k: v for k, v in plain.items() if k not in ("task", "task_class", "hour", "weekday")}
    assert said == {name: UNSAID.get(name, FACTS[name].kind()) for name in said}


def test_the_command_fails_when_a_case_does(tmp_path):
    rule(tmp_path, "    then: {forbid: any}\n")
    table = tmp_path / "r.cases.yaml"
    told = {}
    for text, name in (("[r]", "right"), ("[]", "wrong")):
        table.write_text(f"cases: [{{name: {name}, says: {text}}}]")
        told[name] = CliRunner().invoke(rules_app, ["test", str(tmp_path)])
    assert (told["right"].exit_code, told["wrong"].exit_code) == (0, 1)


def test_engines_that_are_closed_give_their_memory_back():
    rules, process = load([ROOT / "rules"]), psutil.Process()
    kept = Engine(rules)
    sizes = []
    for _ in range(3):
        for _ in range(100):
            engine = Engine(rules)
            assert engine.evaluate({"priority": "critical"})
            engine.close()
        sizes.append(process.memory_info().rss)
    assert sizes[2] - sizes[0] < 4 * 2**20  # two hundred sets left open would be 20 MiB
    assert kept.evaluate({"priority": "critical"})


def test_more_rules_than_the_library_can_match_at_once(tmp_path):
    (tmp_path / "many.yaml").write_text(
        "rules:\n" + "".join(f"  - {{name: r{n}, reason: x, then: {{forbid: any}}}}\n" for n in range(150))
    )
    assert [said.rule for said in Engine(load([tmp_path])).evaluate({})] == [f"r{n}" for n in range(150)]


def test_sessions_do_not_pile_up():
    engine = Engine(load([ROOT / "rules"]))
    for _ in range(3000):  # the library holds at most 1,024
        engine.evaluate({"priority": "critical"})
