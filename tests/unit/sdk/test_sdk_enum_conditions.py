"""Conditions on members of enumerations hold as in Python, also where a member is a text or a number."""

from __future__ import annotations

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
            possible = any(compare(one, other) != (compare is operator.ne) for one in list[Any](type(value)))
        except TypeError:
            expected = possible = False
        if possible:
            assert (condition.local()["done"] == "said") == expected, (name, other)
        else:
            with pytest.raises(DefinitionError, match=r"is never|cannot be compared"):
                condition.compile()


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
    assert first.when == AnyOf(tuple(Compare("eq", Param("mode"), Inline(text)) for text in texts))
    assert second.when == AnyOf(tuple(Compare("eq", Param("level"), Inline(text)) for text in ("HIGH", 5)))


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
