"""Gates: parsing, verdicts and syntax errors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.registry import gate_evaluation, gates
from penstock_core.registry.errors import GateError
from penstock_core.registry.gate_evaluation import describe, judge
from penstock_core.registry.gates import (
    Comparison,
    Computed,
    Either,
    Every,
    Gate,
    Metric,
    Negative,
    Number,
    Term,
    negated,
)


@dataclass
class Version:
    version: int = 1
    metrics: dict[str, float] = field(default_factory=dict)
    non_finite: dict[str, str] = field(default_factory=dict)


def verdict(gate: str, mine: dict[str, float], **standing: dict[str, float]) -> gate_evaluation.Verdict:
    others = {alias: Version(n, metrics) for n, (alias, metrics) in enumerate(standing.items(), 10)}
    return judge(gates.parse(gate), Version(3, mine), others)


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("accuracy > 0.9", Comparison(">", Metric("accuracy"), Number("0.9"))),
        ("a<b", Comparison("<", Metric("a"), Metric("b"))),
        (
            "accuracy > champion.accuracy + 0.01",
            Comparison(">", Metric("accuracy"), Computed("+", Metric("accuracy", of="champion"), Number("0.01"))),
        ),
        (
            "a >= 1 and b < 2 or c == 3",
            Either(
                (
                    Every((Comparison(">=", Metric("a"), Number("1")), Comparison("<", Metric("b"), Number("2")))),
                    Comparison("==", Metric("c"), Number("3")),
                )
            ),
        ),
        ("not a < 1", Comparison(">=", Metric("a"), Number("1"))),
        (
            "not (a < 1 and b != 2)",
            Either((Comparison(">=", Metric("a"), Number("1")), Comparison("==", Metric("b"), Number("2")))),
        ),
        (
            "0.5 < a <= 1e0",
            Every((Comparison("<", Number("0.5"), Metric("a")), Comparison("<=", Metric("a"), Number("1e0")))),
        ),
        ("'val/loss' < \"it's\"", Comparison("<", Metric("val/loss"), Metric("it's"))),
        ("'pre-prod'.'f1 score' > .5", Comparison(">", Metric("f1 score", of="pre-prod"), Number(".5"))),
        (
            "(a + b) * -2 > 1 - 2 - 3",
            Comparison(
                ">",
                Computed("*", Computed("+", Metric("a"), Metric("b")), Negative(Number("2"))),
                Computed("-", Computed("-", Number("1"), Number("2")), Number("3")),
            ),
        ),
        ("((a) > (1))", Comparison(">", Metric("a"), Number("1"))),
    ],
)
def test_parsing(text: str, means: Gate) -> None:
    assert gates.parse(text) == means


@pytest.mark.parametrize(
    ("text", "at", "says"),
    [
        ("", 0, "expected a number or a metric, not the end, at its beginning (character 1 of the gate)"),
        ("accuracy >", 10, "expected a number or a metric, not the end, after 'accuracy >'"),
        ("accuracy", 8, "expected a comparison such as '> 0.9', not the end"),
        ("a > 1 and", 9, "not the end, after 'a > 1 and'"),
        ("a > 1 b", 6, "expected 'and', 'or' or the end, not 'b'"),
        ("a > max(b)", 7, "expected 'and', 'or' or the end, not '('"),
        ("a > 1; b", 5, "'; b' is not a number, a name or a known operator"),
        ("a > 1 && b > 2", 6, "'&& b > 2' is not a number, a name"),
        ("__import__('os').system('x') > 1", 10, "not '('"),
        ("a = 1", 2, "'= 1' is not a number, a name"),
        ("a > 'x", 4, "is not a number, a name"),
        ("(a > 1", 6, "expected ')', not the end"),
        ("a.b.c > 1", 3, "not '.'"),
        ("a. > 1", 3, "expected the name of a metric of 'a'"),
        ("1e999 > a", 0, "1e999 is too large"),
        ("12abc > 1", 0, "is not a number, a name"),
        ("not", 3, "not the end"),
        ("(" * 300 + "a > 1" + ")" * 300, 50, "nested too deeply"),
        ("not " * 200 + "a > 1", 200, "nested too deeply"),
        ("a > " + "-" * 400 + "1", 50, "nested too deeply"),
        ("a > 1 or " * 200 + "a > 1", 1000, "the limit is 1000"),
        ("a > 1\x00", 5, "is not a number, a name"),
    ],
)
def test_syntax_errors_have_a_position(text: str, at: int, says: str) -> None:
    with pytest.raises(GateError) as raised:
        gates.parse(text)
    assert says in str(raised.value)
    if at not in (50, 200):
        assert raised.value.at == at


@given(st.text(max_size=80) | st.text("ab.1 <>=!+-*/()'\"andornt", max_size=60))
def test_any_text_parses_or_raises_a_positioned_error(text: str) -> None:
    try:
        found = gates.parse(text)
    except GateError as error:
        assert 0 <= error.at <= len(text)
    else:
        assert gates.parse(describe(found)) == found


names = st.sampled_from(["a", "b", "loss", "val/loss", "it's", "and", "f1 score"])
numbers = st.sampled_from(["0", "1", "0.5", "2e3", ".25", "10."]).map(Number)
terms: st.SearchStrategy[Term] = st.recursive(
    numbers | st.builds(Metric, names) | st.builds(Metric, names, of=st.sampled_from(["champion", "pre-prod"])),
    lambda inner: st.builds(Computed, st.sampled_from("+-*/"), inner, inner) | st.builds(Negative, inner),
    max_leaves=6,
)
comparisons = st.builds(Comparison, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), terms, terms)
several = st.lists(comparisons, min_size=2, max_size=3).map(tuple)
conditions: st.SearchStrategy[Gate] = comparisons | st.builds(Every, several) | st.builds(Either, several)


@given(conditions)
def test_a_described_gate_parses_to_the_same_gate(gate: Gate) -> None:
    text = describe(gate)
    if len(text) <= gates.LIMIT:
        assert gates.parse(text) == gate


# ------------------------------------------------------------------------------------------------------------ verdicts


def test_each_comparison_is_reported_with_both_numbers() -> None:
    found = verdict(
        "accuracy > champion.accuracy + 0.01 and loss < 0.5",
        {"accuracy": 0.9, "loss": 0.25},
        champion={"accuracy": 0.9},
    )
    assert not found.holds
    assert found.texts == (
        "accuracy > champion.accuracy + 0.01: 0.9 > 0.91 is false",
        "loss < 0.5: 0.25 < 0.5 is true",
    )


@pytest.mark.parametrize(
    ("gate", "mine", "standing", "holds", "says"),
    [
        ("a > champion.a", {"a": 1.0}, {}, True, "there is no champion yet, so it is true"),
        ("champion.a * 1.1 < a", {"a": 1.0}, {}, True, "no champion yet"),
        ("not a <= champion.a", {"a": 1.0}, {}, True, "no champion yet"),
        # A version without its own metric cannot be champion, not even the first.
        ("a > champion.a", {"b": 1.0}, {}, False, "version 3 has no metric a (metrics: b), so it is false"),
        ("champion.a < a", {}, {}, False, "version 3 has no metric a (metrics: none)"),
        ("champion.b + a < 2", {}, {}, False, "version 3 has no metric a"),
        ("a > champion.a", {"a": 1.0}, {"champion": {"b": 2.0}}, False, "champion (version 10) has no metric a"),
        ("a / b > 1", {"a": 1.0, "b": 0.0}, {}, False, "1 is divided by 0, so it is false"),
        ("not a / b > 1", {"a": 1.0, "b": 0.0}, {}, False, "divided by 0"),
        ("a * 1e300 - b * 1e300 > 1", {"a": 1e300, "b": 1e300}, {}, False, "is not a number"),
        ("'val/loss' < 1", {"val/loss": 0.5}, {}, True, "'val/loss' < 1: 0.5 < 1 is true"),
    ],
)
def test_missing_metrics(
    gate: str, mine: dict[str, float], standing: dict[str, dict[str, float]], holds: bool, says: str
) -> None:
    found = verdict(gate, mine, **standing)
    assert found.holds is holds
    assert any(says in text for text in found.texts), found.texts


@pytest.mark.parametrize("gate", ["a > 0.5", "a <= 0.5", "not a > 0.5", "a != 0.5", "a == a"])
def test_comparisons_with_nan_are_false(gate: str) -> None:
    found = judge(gates.parse(gate), Version(3, {}, {"a": "nan"}), {})
    assert not found.holds
    assert "a of version 3 is nan, so it is false" in found.texts[0]


def test_all_comparisons_are_reported_without_short_circuit() -> None:
    found = verdict("a > 1 or b > 1 and c > 1", {"a": 2.0, "b": 0.0, "c": 0.0})
    assert found.holds
    assert len(found.clauses) == 3
    assert [clause.holds for clause in found.clauses] == [True, False, False]


def python(term: Term, mine: dict[str, float]) -> float:
    """Evaluate a term without aliases in Python."""
    match term:
        case Number():
            return float(term.text)
        case Metric(name):
            return mine[name]
        case Negative(of):
            return -python(of, mine)
        case Computed(sign, left, right):
            one, other = python(left, mine), python(right, mine)
            return {
                "+": lambda: one + other,
                "-": lambda: one - other,
                "*": lambda: one * other,
                "/": lambda: one / other,
            }[sign]()


def truth(gate: Gate, mine: dict[str, float]) -> bool:
    match gate:
        case Comparison(sign, left, right):
            one, other = python(left, mine), python(right, mine)
            if math.isnan(one) or math.isnan(other):
                raise ZeroDivisionError
            return {
                "<": one < other,
                "<=": one <= other,
                ">": one > other,
                ">=": one >= other,
                "==": one == other,
                "!=": one != other,
            }[sign]
        case Every(parts):
            return all([truth(part, mine) for part in parts])
        case Either(parts):
            return any([truth(part, mine) for part in parts])


own: st.SearchStrategy[Term] = st.recursive(
    numbers | st.builds(Metric, names),
    lambda inner: st.builds(Computed, st.sampled_from("+-*/"), inner, inner) | st.builds(Negative, inner),
    max_leaves=6,
)
own_comparisons = st.builds(Comparison, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), own, own)
own_gates = st.recursive(
    own_comparisons,
    lambda inner: (
        st.builds(Every, st.lists(inner, min_size=2, max_size=3).map(tuple))
        | st.builds(Either, st.lists(inner, min_size=2, max_size=3).map(tuple))
    ),
    max_leaves=5,
)


@given(
    own_gates,
    st.fixed_dictionaries(
        {name: st.floats(-1e6, 1e6) for name in ["a", "b", "loss", "val/loss", "it's", "and", "f1 score"]}
    ),
)
def test_arithmetic_matches_python_and_not_negates(gate: Gate, mine: dict[str, float]) -> None:
    try:
        expected = truth(gate, mine)
    except ZeroDivisionError:
        return
    assert judge(gate, Version(1, mine), {}).holds is expected
    assert judge(negated(gate), Version(1, mine), {}).holds is not expected


@given(conditions, st.dictionaries(names, st.floats(allow_nan=False)), st.booleans())
def test_evaluating_a_gate_never_raises(gate: Gate, mine: dict[str, float], stands: bool) -> None:
    champion = {"champion": Version(2, mine)} if stands else {}
    found = judge(gate, Version(1, mine, {"loss": "nan"} if "loss" not in mine else {}), champion)
    assert found.clauses
