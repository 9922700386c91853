"""Rule files: what they mean and how they are refused."""

from __future__ import annotations

import pytest

from rules.engine import Engine
from rules.schema import RuleError, load
from tests.conftest import ROOT


def rule(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(f"rules:\n  - name: r\n    reason: because\n{text}")
    return file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("    when: {urgency: 1}\n    then: {forbid: any}\n", r"r.yaml:4: rule 'r': unknown fact 'urgency'; known are task_class"),
        ("    when: {cpus: two}\n    then: {forbid: any}\n", "cpus is a whole number, not 'two'"),
        ("    when: {priority: high}\n    then: {forbid: any}\n", "priority is one of critical, normal, batch, never 'high'"),
        ("    when: {team: {above: 1}}\n    then: {forbid: any}\n", "team is a text and cannot be compared by 'above'"),
        ("    when: {cpus: {over: 1}}\n    then: {forbid: any}\n", "unknown comparison 'over'.*allowed are is, not, above"),
        ("    then: {forbid: {market: cheap}}\n", r"r.yaml:4: rule 'r': unknown market 'cheap'; allowed are spot, on-demand"),
        ("    then: {forbid: {colour: red}}\n", "a pool has no 'colour'; select by kind, market, pool, gpu_model or label.NAME"),
        ("    then: {allow: any}\n", "unknown field 'allow'; allowed are escalate, forbid, prefer, require"),
        ("    then: {forbid: any, prefer: any}\n", "exactly one verb"),
        ("    then: {forbid: {above_usd: 3}}\n", "above_usd belongs to 'escalate'"),
        ("    then: {escalate: {above_usd: .nan}}\n", "must be a number of dollars"),
        ("    when: {any: []}\n    then: {forbid: any}\n", "needs at least one alternative"),
        ("    when: {cpus: 1, cpus: 2}\n    then: {forbid: any}\n", "'cpus' is given twice"),
        ("", "'then' is missing"),
        ("    then: {forbid: any\n", "not YAML"),
    ],
)  # fmt: skip
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
                    '    when: {label.pii: "true", any: [{cpus: {above: 2}}, {team: ml, hour: {below: 6}}]}\n    then: {forbid: any}\n',
                )
            ]
        )
    )
    assert not engine.evaluate({"label.pii": "true"})
    assert engine.evaluate({"label.pii": "true", "cpus": 3})
    assert engine.evaluate({"label.pii": "true", "team": "ml", "hour": 5})
    assert not engine.evaluate({"label.pii": "1", "cpus": 3})


def test_more_rules_than_the_library_can_match_at_once(tmp_path):
    (tmp_path / "many.yaml").write_text(
        "rules:\n" + "".join(f"  - {{name: r{n}, reason: x, then: {{forbid: any}}}}\n" for n in range(150))
    )
    assert [said.rule for said in Engine(load([tmp_path])).evaluate({})] == [f"r{n}" for n in range(150)]


def test_sessions_do_not_pile_up():
    engine = Engine(load([ROOT / "rules"]))
    for _ in range(3000):  # the library holds at most 1,024
        engine.evaluate({"priority": "critical"})
