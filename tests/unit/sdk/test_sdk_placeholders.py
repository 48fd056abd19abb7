"""Placeholders are refused where Python would take them for values, at the user's line, and unpack where they can."""

from __future__ import annotations

import pytest
from sdk_user_modules import UserModules

from penstock import pipeline, step

USES = [
    ("if limit is None: pass", "'limit is None' here does not mean what it says"),
    ("x = 1 if None is not limit else 2", "'None is not limit'"),
    ("found = number(); assert found is not None", "'found is not None'"),
    ("assert number.map([1])[0] is not None", "is not None"),
    ("isinstance(limit, float)", "cannot be tested for its type"),
    ("type(limit)", "'type(limit)'"),
    ("repr(limit)", "cannot be converted to text"),
    ("f'{limit!r}'", "cannot be converted to text"),
    ("'%r' % (limit,)", "cannot be converted to text"),
    ("str([limit])", "cannot be converted to text"),
    ("f'{[number(), number()]}'", "cannot be converted to text"),
    ("{'a': 1}.get(limit)", "cannot be a key of a dictionary"),
    ("{'a': 1}[limit]", "cannot be a key of a dictionary"),
    ("limit in {1, 2}", "cannot be a key of a dictionary, or an element of a set"),
    ("limit in [1, 2]", "Python cannot evaluate it as true or false"),
    ("a, b = number.map([1, 2])", "cannot be walked through"),
    ("a, b, c = two()", "ValueError"),
    ("'/'.join([limit])", "Reference is the type of parameters and results"),
    (
        "import json; json.dumps({'limit': limit})",
        "Reference is the type of parameters and results",
    ),
    ("import json; json.dumps({1})", "Object of type set is not JSON serializable"),
]


@pytest.mark.parametrize(("use", "says"), USES, ids=[use for use, _ in USES])
def test_uses_as_values_are_refused_at_the_line(user: UserModules, use: str, says: str) -> None:
    message = user.refused(f"""
        @step
        def number(n: int = 0) -> int:
            return n

        @step
        def two() -> tuple[int, str]:
            return 1, "x"

        @pipeline
        def wrong(limit: float | None = None):
            {use}  # here
    """)
    assert says in message


def test_match_is_refused(user: UserModules) -> None:
    assert "'match' here does not mean what it says" in user.refused("""
        @pipeline
        def wrong(limit: float | None = None):
            match limit:  # here
                case None:
                    pass
    """)


@step
def two() -> tuple[int, str]:
    return 1, "x"


@step
def show(text: str, number: int) -> str:
    return f"{text}{number}"


def test_a_tuple_of_known_length_is_unpacked() -> None:
    @pipeline
    def unpacking() -> str:
        number, text = two()
        return show(text, number)

    assert unpacking.local() == "x1"


def test_variables_that_can_be_none_at_compile_time_are_left_alone() -> None:
    @pipeline
    def choosing() -> str:
        found = None
        for _ in range(2):
            if found is None:
                found = two()
        return show(found[1], found[0])

    assert len(choosing.compile().nodes) == 2
