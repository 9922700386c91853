"""durable-rules against a plain reading of the same conditions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rules.engine import Engine
from rules.facts import FACTS
from rules.schema import Rule, RuleSet
from rules.schema import Test as Comparison

WORDS = ["", "a", "b", "1", "true", "01", "t1", "null", "A", "a b", "ü", "1.0"]
INTS = [-3, 0, 1, 2, 7, 10**6, 2**40]
LABELS = ["label.pii", "label.zone.x", "label.zone"]


@st.composite
def comparisons(draw):
    name = draw(st.sampled_from([*FACTS, *LABELS]))
    kind = FACTS[name].kind if name in FACTS else str
    if kind is bool:
        return Comparison(name, draw(st.sampled_from(["is", "not"])), draw(st.booleans()))
    if kind is str:
        values = list(FACTS[name].values) if name in FACTS and FACTS[name].values else WORDS
        return Comparison(name, draw(st.sampled_from(["is", "not"])), draw(st.sampled_from(values)))
    return Comparison(
        name, draw(st.sampled_from(["is", "not", "above", "at_least", "below", "at_most"])), draw(st.sampled_from(INTS))
    )


@st.composite
def rule_sets(draw):
    bodies = draw(
        st.lists(
            st.tuples(
                st.lists(comparisons(), max_size=3),
                st.lists(st.lists(comparisons(), min_size=1, max_size=2), max_size=2),
            ),
            min_size=1,
            max_size=60,
        )
    )
    rules = tuple(
        Rule(f"r{n}", "because", "forbid", tuple(every), tuple(tuple(branch) for branch in some), (), None, "")
        for n, (every, some) in enumerate(bodies)
    )  # fmt: skip
    return RuleSet(rules, "digest")


@st.composite
def facts(draw):
    out = {}
    for name, known in FACTS.items():
        values = [True, False] if known.kind is bool else list(known.values) or WORDS if known.kind is str else INTS
        if draw(st.booleans()):
            out[name] = draw(st.sampled_from(values))
    for name in LABELS:
        if draw(st.booleans()):
            out[name] = draw(st.sampled_from(WORDS))
    return out


def holds(test, known):
    kind = FACTS[test.fact].kind if test.fact in FACTS else str
    value = known.get(test.fact, kind())
    return {
        "is": value == test.value,
        "not": value != test.value,
        "above": kind is int and value > test.value,
        "at_least": kind is int and value >= test.value,
        "below": kind is int and value < test.value,
        "at_most": kind is int and value <= test.value,
    }[test.op]


def plainly(rules, known):
    return [
        rule.name
        for rule in rules.rules
        if all(holds(t, known) for t in rule.all)
        and (not rule.any or any(all(holds(t, known) for t in branch) for branch in rule.any))
    ]


@given(rule_sets(), st.lists(facts(), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_durable_rules_says_what_a_plain_reading_says(rules, cases):
    engine = Engine(rules)
    for known in cases:
        assert [said.rule for said in engine.evaluate(known)] == plainly(rules, known)
