"""The module of a session has what its pipeline uses, and nothing else."""

from __future__ import annotations

import linecache
import random
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

from penstock.errors import SourceError
from penstock.interactive import cells, equal_values, session_module
from penstock.interactive.cells import Cell

USUAL = "from penstock import pipeline, step"
PIPELINE = "@pipeline\ndef p():\n    return s()"


def session(*sources: str) -> tuple[dict[str, Any], list[Cell]]:
    """A namespace in which the sources were entered, and the history."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for source in sources:
        exec(compile(source, "<input>", "exec", dont_inherit=True), namespace)  # noqa: S102
    return namespace, [Cell(f"input {number}", source) for number, source in enumerate(sources, 1)]


def imported(*sources: str) -> dict[str, Any]:
    """The names of the module of the pipeline `p` of a session."""
    namespace, history = session(USUAL, *sources, PIPELINE)
    found: dict[str, Any] = {"__name__": "module_of_session"}
    exec(compile(session_module.write("p", namespace, history).text, "<module>", "exec", dont_inherit=True), found)  # noqa: S102
    return found


def result(*sources: str) -> Any:
    """What the step `s` returns in the module."""
    return imported(*sources)["s"]()


def refusal(*sources: str) -> str:
    with pytest.raises(SourceError) as raised:
        imported(*sources)
    return str(raised.value)


def test_only_what_is_used_travels() -> None:
    found = imported("unused = [1]\nprint('shown')", "X = [2]\n@step\ndef s() -> int:\n    return X[0]", "raising = 1")
    assert {"X", "s", "p"} <= found.keys()
    assert not {"unused", "raising"} & found.keys()


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["import os.path\nimport os", "@step\ndef s() -> str:\n    return os.path.basename('a/b')"], "b"),
        (["import json as j", "@step\ndef s() -> str:\n    return j.dumps([1])"], "[1]"),
        (["from math import *", "@step\ndef s() -> float:\n    return floor(2.5)"], 2),
        (
            [
                "try:\n    import nosuch as js\nexcept ImportError:\n    import json as js",
                "@step\ndef s() -> str:\n    return js.dumps(1)",
            ],
            "1",
        ),
        (["def s():\n    return 1\ns = step(s)"], 1),
        (["def _s() -> int:\n    return 4", "s = step(_s)"], 4),
        (["double = lambda x: 2 * x", "@step\ndef s() -> int:\n    return double(4)"], 8),
        (["@step\ndef s() -> int:\n    return one()", "def one():\n    return 1", "def one():\n    return 2"], 2),
        (
            [
                "def even(n):\n    return n == 0 or odd(n - 1)",
                "def odd(n):\n    return n != 0 and even(n - 1)",
                "@step\ndef s() -> bool:\n    return even(4)",
            ],
            True,
        ),
        (
            [
                "class Base:\n    x = 1",
                "class Own(Base):\n    pass",
                "class Base:\n    x = 1",
                "@step\ndef s() -> int:\n    return Own.x",
            ],
            1,
        ),
        (["A, (B, *C) = 'a', ['b', 'c']", "@step\ndef s() -> str:\n    return A + B + C[0]"], "abc"),
        (["T: str = 'typed'", "@step\ndef s() -> str:\n    return T"], "typed"),
        (["N = 0", "for i in range(4):\n    N += i", "@step\ndef s() -> int:\n    return N"], 6),
        (["X = 1", "@step\ndef s() -> list:\n    return [X for X in range(2)]"], [0, 1]),
        (
            [
                "from dataclasses import dataclass\n@dataclass\nclass C:\n    n: int = 3",
                "@step\ndef s() -> 'int':\n    return C().n",
            ],
            3,
        ),
        (
            [
                "import functools\n@functools.lru_cache\ndef cached():\n    return 5",
                "@step\ndef s() -> int:\n    return cached()",
            ],
            5,
        ),
        (["if True:\n    W = 'w'\nelse:\n    W = 'v'", "@step\ndef s() -> str:\n    return W"], "w"),
        (["@step\ndef s() -> str:\n    return __name__"], "module_of_session"),
        (
            [
                "def compute():\n    return [helper()]",
                "def helper():\n    return math.floor(5.5)",
                "import math",
                "X = compute()",
                "@step\ndef s() -> list:\n    return X",
            ],
            [5],
        ),
        (["open = len", "@step\ndef s() -> int:\n    return open('abc')"], 3),
    ],
)
def test_the_step_computes_what_the_session_computes(sources: list[str], expected: object) -> None:
    assert result(*sources) == expected


def test_postponed_annotations_stay_postponed() -> None:
    found = imported("from __future__ import annotations", "class K:\n    n = 1", "@step\ndef s(k: K) -> int: ...")
    assert found["s"].hints["k"] is found["K"]


def test_what_runs_under_main_does_not_travel() -> None:
    message = refusal("if __name__ == '__main__':\n    Z = 'z'", "@step\ndef s() -> str:\n    return Z")
    assert "'s' uses 'Z', a str that no assignment at the top level of a cell makes: pass it as an input" in message


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["X = [1]", "X[0] = 2"], "that input 3 changes (line 1)"),
        (["X = [1]", "del X[0]"], "that input 3 changes (line 1)"),
        (["X = [1]", "X += [2]"], "that input 3 changes (line 1)"),
        (["X = 'a'", "for i in range(2):\n    X = X + 'b'"], "that input 3 changes (line 1)"),
        (["X = 'a'", "X = X + 'b'"], "from its own earlier value (line 1)"),
    ],
)
def test_values_that_need_several_statements_are_refused(sources: list[str], expected: str) -> None:
    assert expected in refusal(*sources, "@step\ndef s() -> str:\n    return str(X)")


def test_functions_without_source_are_refused() -> None:
    message = refusal("exec('def helper():\\n    return 1')", "@step\ndef s() -> int:\n    return helper()")
    assert "the source of 'helper' is not kept by this session" in message


class Fields:
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


def used(generator: random.Random) -> random.Random:
    generator.random()
    return generator


SAME = {
    "numbers": ([1, {"a": (2.5, float("nan"))}], [1, {"a": (2.5, float("nan"))}]),
    "tables": (pd.DataFrame({"x": [1, None]}), pd.DataFrame({"x": [1, None]})),
    "arrays": ({"w": np.arange(4)}, {"w": np.arange(4)}),
    "objects": (Fields(a=[1], b=Fields(c=np.zeros(2))), Fields(a=[1], b=Fields(c=np.zeros(2)))),
    "functions": (len, max),
    "generators": (random.Random(1), random.Random(1)),
    "what cannot be compared": (threading.Lock(), threading.Lock()),
}
OTHERS = {
    "a longer list": ([1, 2], [1]),
    "a changed item": ({"a": [{"b": 1}]}, {"a": [{"b": 2}]}),
    "another type": (Fields(), None),
    "a table with another column": (pd.DataFrame({"x": [1], "y": [1]}), pd.DataFrame({"x": [1]})),
    "another array": (np.arange(4), np.arange(5)),
    "an object with another field": (Fields(a=1, fitted=2), Fields(a=1)),
    "an object with a changed field": (Fields(a=Fields(w=np.ones(2))), Fields(a=Fields(w=np.zeros(2)))),
    "a used generator": (used(random.Random(1)), random.Random(1)),
}


@pytest.mark.parametrize(("first", "second"), SAME.values(), ids=SAME.keys())
def test_values_that_may_be_equal(first: object, second: object) -> None:
    assert equal_values.may_be_equal(first, second)
    equal_values.check(("a",), {"a": first}, {"a": second})


@pytest.mark.parametrize(("first", "second"), OTHERS.values(), ids=OTHERS.keys())
def test_values_that_differ(first: object, second: object) -> None:
    with pytest.raises(SourceError, match=r"'a' is another value in this session"):
        equal_values.check(("a",), {"a": first}, {"a": second})


def test_cells_with_await() -> None:
    cell = Cell("cell [1]", "import asyncio\nx = await asyncio.sleep(0, [1])\nN = 2")
    namespace, history = session(USUAL, "@step\ndef s() -> list:\n    return x", PIPELINE)
    namespace["x"] = [1]
    with pytest.raises(SourceError, match=r"'x', a list that cell \[1\] makes with `await` \(line 2\)"):
        session_module.write("p", namespace, [cell, *history])


def test_inputs_of_newer_prompts_are_read_from_their_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {f"<python-input-{number}>": (5, None, [f"x = {number}\n"], "") for number in (10, 9)}
    monkeypatch.setattr(linecache, "cache", {**linecache.cache, **lines})
    assert [cell.source for cell in cells.history()] == ["x = 9\n", "x = 10\n"]


def test_lines_of_the_prompt_are_split_into_statements() -> None:
    typed = ["x = 1", "def f(a,", "b):", "    if a:", "        return b", "    else:", "        return 2", "y = (1 +"]
    typed += ["2)", "this was wrong", "@step", "def g():", "    return 1", "@step", "def h(): return 3", "class C:"]
    typed += ["    z = '''", "text", "'''", "for i in x:", "    pass", "else:", "    pass", "x"]
    found = list(cells._statements(typed))  # pyright: ignore[reportPrivateUsage]
    assert [source.splitlines()[0] for source in found] == [
        "x = 1", "def f(a,", "y = (1 +", "@step", "@step", "class C:", "for i in x:", "x",
    ]  # fmt: skip
    assert found[1].count("\n") == 6
