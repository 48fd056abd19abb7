"""CEL expressions by cel-expr-python, Google's C++ implementation.

Traps that this module hides: an error of an evaluation is returned as a value, not raised; a variable cannot be called
`type`; integers beyond 64 bits cannot be passed in. Evaluation is bounded by the library's budget of iterations.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from cel_expr_python import cel

from penstock_core.deployments import event_types
from penstock_core.deployments.matching import ExpressionError

_CACHED = 50_000
"""Compiled expressions that are kept: those of about ten thousand deployments."""

_PROBLEM = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_NUMBERS = re.compile(r"applied to '\((?:int|double|uint)(?:, (?:int|double|uint))*\)'")
_INT_LIMIT = 2**63

_DECLARED: dict[str, Callable[[], Any]] = {
    "int": lambda: cel.Type.INT,
    "string": lambda: cel.Type.STRING,
    "bool": lambda: cel.Type.BOOL,
    "list": lambda: cel.Type.List(cel.Type.DYN),
    "map": lambda: cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
}


class CelEvaluator:
    """Compiles each expression once, and evaluates it."""

    def evaluate(self, expression: str, scope: Mapping[str, Any]) -> Any:
        """Return the value of an expression as JSON data, or a datetime.

        Raises:
            ExpressionError: it cannot be compiled or evaluated.
        """
        compiled = _compiled(expression)
        try:
            found = _evaluated(compiled, scope)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ExpressionError(_evaluation_error(str(error))) from error
        if found.type() == cel.Type.ERROR:
            raise ExpressionError(_evaluation_error(str(found.plain_value())))
        return _json(found.plain_value())

    def check(self, expression: str, wants: str = "") -> None:
        """Check an expression before it is stored.

        Args:
            expression: the expression.
            wants: `bool` if its value must be true or false.

        Raises:
            ExpressionError: it cannot be compiled, with the position; or its value has another type.
        """
        kind = _compiled(expression).return_type()
        if wants == "bool" and kind not in (cel.Type.BOOL, cel.Type.DYN):
            raise ExpressionError(f"the value must be true or false, not {kind.name().lower()}")

    def check_types(self, expression: str, types: Mapping[str, str]) -> None:
        """Check the types of an expression whose fields are known.

        Args:
            expression: an expression that `check` accepts.
            types: `int`, `string`, `bool`, `list` or `map` by path, such as `data.rows`.

        Raises:
            ExpressionError: an operation does not exist for these types, with the position.
        """
        # A declared `data.rows` precedes the field of `data`; `has` takes fields only.
        environment = _new_environment({path: _DECLARED[name]() for path, name in types.items()})
        try:
            environment.compile(event_types.without_has(expression))
        except RuntimeError as error:
            # JSON does not tell integers from doubles, so mixing them is no error.
            problems = [one for one in _problems(str(error)) if not _NUMBERS.search(one)]
            if problems:
                raise ExpressionError("; ".join(problems[:3])) from error


def _new_environment(more: Mapping[str, Any]) -> Any:
    return cel.NewEnv(
        variables={
            "data": cel.Type.DYN,
            "event": cel.Type.Map(cel.Type.STRING, cel.Type.DYN),
            "events": cel.Type.List(cel.Type.DYN),
            **more,
        }
    )


@functools.lru_cache(maxsize=1)
def _environment() -> Any:
    return _new_environment({})


@functools.lru_cache(maxsize=_CACHED)
def _compiled(expression: str) -> Any:
    try:
        return _environment().compile(expression)
    except RuntimeError as error:
        raise ExpressionError(_compile_error(str(error))) from error
    except TypeError as error:  # lone surrogates
        raise ExpressionError("the expression is not valid Unicode text") from error


def _evaluated(compiled: Any, scope: Mapping[str, Any]) -> Any:
    found = compiled.eval(data=scope)
    if found.type() == cel.Type.ERROR and "Integer value" in str(found.plain_value()):
        return compiled.eval(data=_fitting(scope))
    return found


def _compile_error(text: str) -> str:
    return "; ".join(_problems(text)[:3]) or text


def _problems(text: str) -> list[str]:
    """What the compiler found, each with its position."""
    found = [
        f"line {line}, column {column}: {message}" if line != "1" else f"column {column}: {message}"
        for line, column, message in _PROBLEM.findall(text)
    ]
    return [problem.replace(" (in container '')", "") for problem in found]


def _evaluation_error(text: str) -> str:
    """The message without the code of the C++ library in front of it or behind it."""
    message = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$", "", text.strip())
    missing = re.match(r'Key not found in map : "(.*)"', message)
    if missing:
        return f"there is no field {missing[1]!r}"
    return message.replace("No matching overloads found : ", "no such operation: ")


def _json(value: Any) -> Any:
    match value:
        case datetime.timedelta():
            return value.total_seconds()
        case bytes() | bytearray():
            raise ExpressionError("the value is bytes; convert it to text, for example with string()")
        case dict():
            return {str(key): _json(item) for key, item in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [_json(item) for item in cast("Sequence[Any]", value)]
        case None | bool() | int() | float() | str() | datetime.datetime():
            return value
        case _:
            raise ExpressionError(f"the value is a {type(value).__name__.lower()}, which JSON does not have")


def _fitting(value: Any) -> Any:
    """The same data with integers beyond 64 bits as floats, as JSON readers in other languages have them."""
    match value:
        case int() if not -_INT_LIMIT <= value < _INT_LIMIT:
            return float(value)
        case Mapping():
            return {key: _fitting(item) for key, item in cast("Mapping[str, Any]", value).items()}
        case list():
            return [_fitting(item) for item in cast("list[Any]", value)]
        case _:
            return value
