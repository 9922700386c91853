"""Rules that change under a running governor: when they are read, refused, swapped, and what is judged again."""

from __future__ import annotations

import pytest

from agent.governor.rulebook import Refused, Rulebook, Rules, Watch
from agent.model.events import SpecAdded, TaskReady
from agent.model.verdicts import Verdict
from agent.scheduler import protocol
from agent.state.approvals import Answers, carry_over
from rules.schema import RuleError
from tests.unit.test_cluster_state import apply, ready, view

FORBID = "rules: [{name: a, reason: x, then: {forbid: {market: spot}}}]"
A, B = ((("f", 1, 1),), (("f", 2, 1),))


def rulebook(tmp_path, text=FORBID):
    (tmp_path / "rules").mkdir(exist_ok=True)
    (tmp_path / "rules/a.yaml").write_text(text)
    return Rulebook([tmp_path / "rules"], tmp_path / "kept.json")


def looked(made):
    """What the second of two looks says: the first sees that the files changed."""
    assert made.look() is None
    return made.look()


def test_files_are_read_once_two_looks_saw_them_the_same():
    watch = Watch(read=A, seen=A)
    watch, read = watch.look(A)
    assert not read
    watch, read = watch.look(B)
    assert not read  # it may be half written
    watch, read = watch.look(B)
    assert read
    _, read = watch.look(B)
    assert not read


def test_a_file_that_goes_on_changing_is_not_read():
    watch = Watch(read=A, seen=A)
    for n in range(3, 9):
        watch, read = watch.look((("f", n, 1),))
        assert not read


def test_a_good_change_is_offered_and_not_yet_in_force(tmp_path):
    made = rulebook(tmp_path)
    (tmp_path / "rules/b.yaml").write_text("rules: [{name: b, reason: y, then: {prefer: any}}]")
    found = looked(made)
    assert isinstance(found, Rules)
    assert (made.rules.count, found.count) == (1, 2)
    change = made.change(found)
    assert (change.added, change.removed, change.changed) == (("b",), (), ())
    made.swap(found)
    assert [v.rule for v in made.rules.judge({})] == ["a", "b"]
    (tmp_path / "rules/a.yaml").write_text(FORBID.replace("x", "another reason"))
    assert made.change(looked(made)).changed == ("a",)


def test_a_wrong_file_is_refused_once_and_the_rules_in_force_stay(tmp_path):
    made = rulebook(tmp_path)
    (tmp_path / "rules/a.yaml").write_text(FORBID.replace("forbid", "allow"))
    found = looked(made)
    assert isinstance(found, Refused)
    assert "unknown field 'allow'" in found.why
    assert made.wrong == found.why
    assert made.look() is None
    assert [v.verb for v in made.rules.judge({})] == ["forbid"]
    (tmp_path / "rules/a.yaml").write_text(FORBID + "\n# as before")
    assert looked(made) is None  # the same rules: nothing to swap
    assert made.wrong == ""


@pytest.mark.parametrize("left", [None, "", "rules: []"])
def test_no_rule_left_is_refused_since_every_forbid_would_be_lifted(tmp_path, left):
    made = rulebook(tmp_path)
    if left is None:
        (tmp_path / "rules/a.yaml").unlink()
    else:
        (tmp_path / "rules/a.yaml").write_text(left)
    assert "no rule is left" in looked(made).why
    assert made.rules.count == 1


def test_a_governor_that_starts_while_a_file_is_wrong_goes_on_with_the_rules_that_were_in_force(tmp_path):
    before = rulebook(tmp_path)
    (tmp_path / "rules/a.yaml").write_text("rules: {")
    after = Rulebook([tmp_path / "rules"], tmp_path / "kept.json")
    assert after.rules.set == before.rules.set
    assert "not YAML" in after.wrong
    (tmp_path / "kept.json").write_text("{}")
    with pytest.raises(RuleError, match="not YAML"):
        Rulebook([tmp_path / "rules"], tmp_path / "kept.json")


def forbids(facts):
    return (Verdict(rule="a", verb="forbid", reason="x"),)


def asks(facts):
    return (Verdict(rule="ask", verb="escalate", reason="x"),)


def test_waiting_tasks_are_judged_again_when_the_rules_change():
    made = view()
    ready(made, "k")
    (before,) = made.live_groups()
    moved = made.judge_again(forbids, frozenset(), 0)
    (after,) = made.live_groups()
    assert [v.rule for v in after.verdicts] == ["a"]
    assert moved == {after.id: frozenset({before.id})}
    assert made.waiting.group_of == {"k": after.id}
    ready(made, "later")
    assert made.live_groups()[0].ready == 2


def test_rules_that_say_the_same_leave_every_group_its_name():
    made = view()
    ready(made, "k")
    assert made.judge_again(lambda facts: (), frozenset({"team"}), 0) == {}


def test_waiting_tasks_are_judged_again_when_the_hour_turns():
    made = view(lambda facts: forbids(facts) if facts["hour"] >= 1 else (), frozenset({"hour"}))
    ready(made, "k", now=3_599_000)
    assert made.live_groups()[0].verdicts == ()
    made.turn_hour(3_599_500)
    assert made.live_groups()[0].verdicts == ()
    made.turn_hour(3_600_000)
    assert [v.rule for v in made.live_groups()[0].verdicts] == ["a"]
    assert made.turn_hour(3_601_000) == {}


def test_the_hour_is_nothing_to_rules_that_do_not_read_it():
    made = view()
    ready(made, "k")
    made.groups._cache.clear()
    assert made.turn_hour(9_000_000) == {}
    assert made.groups._cache == {}  # nobody was asked


def approved(made, **says):
    (group,) = made.live_groups()
    made.groups.answers[group.id] = Answers(
        approved=("ask",), approved_pools=("spot",), approved_by="ada", approved_usd_micros=7, **says
    )


def test_an_approval_goes_along_for_a_rule_that_says_the_same():
    made = view(asks)
    ready(made, "k")
    approved(made, override="spot")
    moved = made.judge_again(lambda facts: (*asks(facts), *forbids(facts)), frozenset(), 0)
    ((new, olds),) = moved.items()
    about = {"groups": [new], "carried_from": sorted(olds)}
    assert carry_over(made.groups.answers, made.groups.known, moved) == [
        {**about, "override": "spot"},
        {**about, "answer": "approve", "rules": ["ask"], "pool": "spot", "by": "ada", "usd_micros": 7},
    ]


def test_a_rule_that_was_changed_asks_again():
    made = view(asks)
    ready(made, "k")
    approved(made)
    stricter = (Verdict(rule="ask", verb="escalate", reason="x", above_usd_micros=5),)
    moved = made.judge_again(lambda facts: stricter, frozenset(), 0)
    assert moved
    assert carry_over(made.groups.answers, made.groups.known, moved) == []


def test_groups_that_become_one_keep_only_what_was_said_of_each():
    judged = {"k": "one", "l": "two"}
    made = view(lambda facts: (Verdict(rule="ask", verb="escalate", reason=judged[facts["task"]]),))
    for number, name in enumerate(("k", "l"), 1):
        apply(
            made,
            SpecAdded(number,
                {"prefix": "work", "says": {"task_class": "c", protocol.NAME: name}, "resources": {}},
            ),
            0,
        )
        apply(made, TaskReady(name, number, 0, 0), 0)
    first, second = made.live_groups()
    word = Answers(rejected_by="ada")
    made.groups.answers[first.id] = word
    moved = {"new": frozenset({first.id, second.id})}
    groups = {**made.groups.known, "new": first}
    assert carry_over(made.groups.answers, groups, moved) == []
    made.groups.answers[second.id] = Answers(rejected_by="ada")
    assert [said["answer"] for said in carry_over(made.groups.answers, groups, moved)] == ["reject"]
