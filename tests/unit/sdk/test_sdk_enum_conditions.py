"""Conditions on members of enumerations hold as in Python, also where a member is a text or a number."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import itertools
import operator
from collections.abc import Callable
from typing import Any

import pytest
from sdk_user_modules import UserModules

from penstock import DefinitionError, pipeline, step, when
from penstock_core.pipeline.conditions import AnyOf, Compare
from penstock_core.pipeline.values import Inline, Output, Param


class Text(str, enum.Enum):  # noqa: UP042 - what users of older Python write
    FAST = "fast"
    SLOW = "slow"
    QUICK = "fast"


class Number(enum.IntEnum):
    LOW = 1
    HIGH = 5


class Plain(enum.Enum):
    A = "a"
    B = "b"


@step
def text(name: str) -> Text:
    return Text[name]


@step
def number(name: str) -> Number | None:
    return Number[name] if name else None


@step
def plain(name: str) -> Plain:
    return Plain[name]


@step
def word(name: str) -> str:
    return name


@step
def loose(name):  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
    return name


@step
def say() -> str:
    return "said"


COMPARISONS: list[Callable[[Any, Any], Any]] = [
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip


@pytest.mark.parametrize("compare", COMPARISONS)
@pytest.mark.parametrize(
    ("made", "names", "others"),
    [
        (text, ["FAST", "SLOW"], ["fast", "slow", "middle", Text.FAST, Text.QUICK]),
        (number, ["LOW", "HIGH"], [1, 5, 3, 2.5, Number.HIGH]),
        (plain, ["A", "B"], [Plain.A, Plain.B]),
    ],
)
def test_conditions_hold_as_in_python(
    made: Any, names: list[str], others: list[Any], compare: Callable[[Any, Any], Any]
) -> None:
    for name, other in itertools.product(names, others):
        condition = _pipeline(lambda name=name, other=other: compare(made(name), other))
        value = made.function(name)
        try:
            expected = bool(compare(value, other))
            possible = any(
                compare(one, other) != (compare is operator.ne) for one in value.__class__.__members__.values()
            )
        except TypeError:
            expected = possible = False
        if possible:
            assert (condition.local()["done"] == "said") == expected, (name, other)
        else:
            with pytest.raises(DefinitionError, match=r"is never|cannot be compared"):
                condition.compile()


class Crossed(str, enum.Enum):  # noqa: UP042
    A = "B"
    B = "A"


class Day(datetime.date, enum.Enum):
    FIRST = (2024, 5, 1)


class Bits(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass
class Named:
    name: str


@dataclasses.dataclass
class Valued:
    value: int


RESULTS: dict[str, Any] = {
    one: value
    for one, value in {
        "text": Text.FAST, "crossed": Crossed.A, "number": Number.HIGH, "plain": Plain.A, "day": Day.FIRST,
        "list": [Text.FAST, Plain.A], "dict": {"mode": Text.FAST}, "bits": Bits.READ, "both": Bits.READ | Bits.WRITE,
        "named": Named("A"), "valued": Valued(5), "word": "fast", "member": "FAST", "letter": "A", "five": 5,
    }.items()
}  # fmt: skip


@step
def unhinted(which):  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
    return RESULTS[which]


@step
def as_text(which: str) -> str:
    return RESULTS[which]


LITERALS = [
    "fast", "FAST", "A", "B", 5, 1, 3, Text.FAST, Text.SLOW, Crossed.A, Crossed.B, Number.HIGH, Plain.A, Plain.B,
    ["fast", Plain.A], ["FAST", "A"], {"mode": "fast"}, {"mode": "FAST"}, {"mode": Text.FAST},
]  # fmt: skip


@pytest.mark.parametrize("which", RESULTS)
@pytest.mark.parametrize("other", LITERALS, ids=repr)
def test_results_without_a_hint_are_compared_as_in_python(which: str, other: Any) -> None:
    value = RESULTS[which]
    for compare in (operator.eq, operator.ne):
        assert _holds(lambda compare=compare: compare(unhinted(which), other)) == compare(value, other)
    try:
        expected = value < other
    except TypeError:
        return
    if not isinstance(other, list | dict):
        assert _holds(lambda: unhinted(which) < other) == expected


@pytest.mark.parametrize("other", ["fast", "FAST", Text.FAST, Text.SLOW], ids=repr)
def test_a_text_that_is_a_member_is_compared_as_its_text(other: Any) -> None:
    assert _holds(lambda: as_text("text") == other) == (other == Text.FAST)


@pytest.mark.parametrize(("one", "other"), list(itertools.product(RESULTS, RESULTS)))
def test_two_results_without_hints_are_compared_as_in_python(one: str, other: str) -> None:
    assert _holds(lambda: unhinted(one) == unhinted(other)) == (RESULTS[one] == RESULTS[other])


def test_a_list_of_members_is_compared_with_texts_and_members() -> None:
    @step
    def modes() -> list[Text]:
        return [Text.FAST]

    for other, expected in ((["fast"], True), ([Text.FAST], True), (["FAST"], False), ([Text.SLOW], False)):
        assert _holds(lambda other=other: modes() == other) == expected


def test_members_of_an_unhinted_parameter_are_compared_as_in_python() -> None:
    @pipeline
    def p(mode) -> dict[str, Any]:  # pyright: ignore[reportMissingParameterType, reportUnknownParameterType]
        with when(mode == "fast"):  # pyright: ignore[reportUnknownArgumentType]
            done = say()
        return {"done": done}

    found = {str(given): p.local(mode=given)["done"] for given in (Text.FAST, Text.SLOW, "fast", "FAST")}
    assert found == {"Text.FAST": "said", "Text.SLOW": None, "fast": "said", "FAST": None}


def _holds(condition: Callable[[], Any]) -> bool:
    return _pipeline(condition).local()["done"] == "said"


def _pipeline(condition: Callable[[], Any]) -> Any:
    @pipeline
    def p() -> dict[str, Any]:
        with when(condition()):
            done = say()
        return {"done": done}

    return p


@pytest.mark.parametrize("other", [lambda: word("fast"), lambda: loose("fast"), lambda: plain("A")])
def test_members_are_compared_with_results_of_their_own_type_only(other: Callable[[], Any]) -> None:
    assert _pipeline(lambda: text("FAST") == text("FAST")).local() == {"done": "said"}
    for condition in (lambda: text("FAST") == other(), lambda: other() == text("FAST")):
        with pytest.raises(DefinitionError, match=r"never equal|cannot be compared"):
            _pipeline(condition).compile()


def test_a_parameter_may_be_a_member_its_name_or_its_value() -> None:
    @pipeline
    def p(mode: Text, level: Number) -> dict[str, Any]:
        with when(mode == "fast"):
            fast = say()
        with when(level > 2):
            high = say()
        return {"fast": fast, "high": high}

    for given in (
        {"mode": Text.FAST, "level": Number.HIGH},
        {"mode": "QUICK", "level": "HIGH"},
        {"mode": "fast", "level": 5},
    ):
        assert p.local(**given) == {"fast": "said", "high": "said"}
    assert p.local(mode="slow", level=1) == {"fast": None, "high": None}
    first, second = p.compile().nodes
    texts = ["FAST", "QUICK", "fast"]
    assert first.when == AnyOf(tuple(Compare("eq", Param("mode"), Inline(text), names=True) for text in texts))
    assert second.when == AnyOf(tuple(Compare("eq", Param("level"), Inline(text), names=True) for text in ("HIGH", 5)))


def test_a_text_is_compared_with_the_value_of_a_member() -> None:
    @pipeline
    def p(given: str) -> dict[str, Any]:
        with when(word(given) == Text.FAST):
            done = say()
        return {"done": done}

    assert p.compile().nodes[1].when == Compare("eq", Output("word"), Inline("fast"))
    assert (p.local(given="fast"), p.local(given="FAST")) == ({"done": "said"}, {"done": None})


def test_none_is_no_member(user: UserModules) -> None:
    @pipeline
    def p(name: str) -> dict[str, Any]:
        with when(number(name) != 5):
            done = say()
        return {"done": done}

    assert [p.local(name=name)["done"] for name in ("", "LOW", "HIGH")] == ["said", "said", None]
