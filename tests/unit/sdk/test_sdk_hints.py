"""Type hints: compatibility, matching values, display and schemas."""

from __future__ import annotations

import collections
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PosixPath
from typing import Annotated, Any, Generic, Literal, NewType, Optional, Protocol, TypedDict, TypeVar, Union

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sdk_sample_types import Color, Config, Frozen, Pair, Settings
from sklearn.base import BaseEstimator
from sklearn.tree import DecisionTreeClassifier

from penstock import hints
from penstock.hints.assignability import is_assignable
from penstock.hints.json_schema import schema
from penstock.hints.value_check import problem

T = TypeVar("T")
Number = TypeVar("Number", int, float)
Bound = TypeVar("Bound", bound=BaseEstimator)
UserId = NewType("UserId", int)


class Sized(Protocol):
    def size(self) -> int: ...


class Fielded(Protocol):
    size: int


class Row(TypedDict):
    x: int


class Box(Generic[T]):
    pass


class Sub(Frozen):
    pass


FIT = [
    (int, int),
    (int, float),
    (bool, int),
    (int, complex),
    (int, Any),
    (Any, int),
    (int, object),
    (int, T),
    (int, Number),
    (DecisionTreeClassifier, Bound),
    (int, int | None),
    (None, int | None),
    (Optional[int], Union[None, float]),  # noqa: UP007, UP045 - the old way of writing it
    (Literal["a"], str),
    (Literal["a"], Literal["a", "b"]),
    (Literal["a", 1], str | int),
    (list, list[int]),
    (list[int], list),
    (list[bool], list[int]),
    (list[int], Sequence[float]),
    (list[int], Iterable[int]),
    (list[int], Collection[int]),
    (tuple[int, str], tuple[int, str]),
    (tuple[int, int], tuple[int, ...]),
    (tuple[int, ...], Sequence[int]),
    (dict[str, int], Mapping[str, float]),
    (dict[str, int], Iterable[str]),
    (collections.OrderedDict[str, int], dict[str, int]),
    (set[int], set[float]),
    (str, Sequence[str]),
    (PosixPath, Path),
    (Sub, Frozen),
    (DecisionTreeClassifier, BaseEstimator),
    (pd.DataFrame, pd.DataFrame),
    (npt.NDArray[np.float64], np.ndarray),
    (np.ndarray, npt.NDArray[np.float64]),
    (UserId, int),
    (int, UserId),
    (Annotated[int, "meters"], int),
    (Row, dict[str, Any]),
    (dict[str, int], Row),
    (Box[int], Box[str]),
    (int, Sized),
    (int, Fielded),
    (Callable[[int], int], Callable[..., Any]),
    (type(lambda: 1), Callable[..., Any]),
    ("Unknown", int),
    (Settings, Settings),
]

MISFIT = [
    (str, int),
    (float, int),
    (int, str),
    (int | None, int),
    (int | str, int),
    (str, Literal["a"]),
    (Literal["c"], Literal["a", "b"]),
    (Literal["a"], int),
    (list[str], list[int]),
    (list[int], tuple[int, ...]),
    (list[int], set[int]),
    (list[int], dict[str, int]),
    (tuple[int, ...], tuple[int, int]),
    (tuple[int, str], tuple[int, ...]),
    (tuple[int], tuple[int, int]),
    (dict[str, str], dict[str, int]),
    (dict[int, str], dict[str, str]),
    (Frozen, Sub),
    (pd.DataFrame, pd.Series),
    (pd.DataFrame, np.ndarray),
    (None, int),
    (str, Path),
    (Path, str),
    (bytes, str),
    (Config, dict),
    (Color, str),
    (DecisionTreeClassifier, pd.DataFrame),
    (list[list[int]], list[list[str]]),
]


@pytest.mark.parametrize(("source", "target"), FIT)
def test_matching_hints(source: Any, target: Any) -> None:
    assert is_assignable(source, target)


@pytest.mark.parametrize(("source", "target"), MISFIT)
def test_mismatching_hints(source: Any, target: Any) -> None:
    assert not is_assignable(source, target)


SUCCESSFUL = [
    (1, int),
    (1, float),
    (np.float32(1), float),
    (np.int64(1), int),
    (np.int64(1), float),
    (np.bool_(True), bool),
    (1, complex),
    (None, None),
    ([1, 2], list[int]),
    ([], list[int]),
    ((1, "a"), tuple[int, str]),
    ((1, 2, 3), tuple[int, ...]),
    ({"a": [1]}, dict[str, list[int]]),
    ({1, 2}, set[int]),
    (Color.RED, Color),
    (Pair(1, []), Pair),
    ({"x": 1}, Row),
    (print, Callable[[str], None]),
    (np.zeros(2), npt.NDArray[np.float64]),
    (Path(), Path),
    (1, Sized),
    (3, UserId),
    (Box(), Box[int]),
    (range(3), Sequence[int]),
    ("abc", Sequence[str]),
    (iter([1]), Iterable[str]),
    (3, "Unknown"),
    (collections.deque([1]), collections.deque[int]),
]
BAD = [
    ("1", int, "'1' (str) is not int"),
    (1.5, int, "1.5 (float) is not int"),
    ("1", int | None, "'1' (str) is not int | None"),
    ("c", Literal["a", "b"], "'c' (str) is not one of 'a', 'b'"),
    (True, Literal[1], "True (bool) is not one of 1"),
    ([1, "a"], list[int], "item 1: 'a' (str) is not int"),
    ({"a": 1, "b": "c"}, dict[str, int], "under key 'b', 'c' (str) is not int"),
    ({1: 1}, dict[str, int], "key 1 (int) is not str"),
    ((1,), tuple[int, str], "a tuple of 1 items is not tuple[int, str]"),
    ((1, 2), tuple[int, str], "item 1: 2 (int) is not str"),
    (pd.DataFrame(), pd.Series, "a value of type DataFrame is not Series"),
    (None, int, "None is not int"),
    ("x" * 100, int, "..."),
    (3, Callable[..., Any], "is not Callable[..., Any]"),
    (np.float64(1), int, "is not int"),
    ([0] * 50_000 + ["a"] * 50_000, list[int], "'a' (str) is not int"),
]


@pytest.mark.parametrize(("value", "hint"), SUCCESSFUL)
def test_matching_values(value: Any, hint: Any) -> None:
    assert problem(value, hint) is None


@pytest.mark.parametrize(("value", "hint", "says"), BAD)
def test_mismatching_values(value: Any, hint: Any, says: str) -> None:
    assert says in (problem(value, hint) or "")


@pytest.mark.parametrize(
    ("hint", "shown", "described"),
    [
        (int, "int", {"type": "integer"}),
        (None, "None", {"type": "null"}),
        (int | None, "int | None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Optional[str], "str | None", {"anyOf": [{"type": "string"}, {"type": "null"}]}),  # noqa: UP045
        (list[int], "list[int]", {"type": "array", "items": {"type": "integer"}}),
        (list, "list", {"type": "array"}),
        (dict[str, float], "dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}),
        (
            dict[int, str],
            "dict[int, str]",
            {"type": "object", "keys": "int", "additionalProperties": {"type": "string"}},
        ),
        (Literal["a", "b"], "Literal['a', 'b']", {"enum": ["a", "b"]}),
        (Color, "Color", {"enum": ["RED", "GREEN", "r", 2], "members": ["RED", "GREEN"]}),
        (list[pd.DataFrame], "list[DataFrame]", {"type": "array"}),
        (tuple[int, ...], "tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        (Callable[[int], str], "Callable[[int], str]", None),
        (Any, "Any", None),
        (typing.List[int], "list[int]", {"type": "array", "items": {"type": "integer"}}),  # noqa: UP006
        (Annotated[int, "x"], "int", {"type": "integer"}),
        (Box[int], "Box[int]", None),
        (UserId, "UserId", {"type": "integer"}),
    ],
)
def test_hints_are_shown_as_written_and_described(hint: Any, shown: str, described: Any) -> None:
    assert hints.show(hint) == shown
    assert schema(hint) == described
