"""Inputs of a run: parse texts, check values against a pipeline's parameters, encode them as JSON.

For the command line: `parse_inputs(pipeline, {"depth": "3"})`, then `check_inputs(pipeline, …)`, whose result is what
`POST /v1/runs` takes. For Python: `check_inputs` alone. Defaults are not filled in; the platform does that.
"""

from __future__ import annotations

import datetime
import decimal
import difflib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

from penstock import codec, hints
from penstock.hints import value_check
from penstock.hints.signature import Parametrized
from penstock_core.durations import parse_duration
from penstock_core.errors import InputError


def check_value(value: object, hint: Any, what: str = "the value") -> Any:
    """Return `value` if it fits the hint, else converted from plain data where that is lossless.

    Raises:
        InputError: it does not fit.
    """
    if value_check.problem(value, hint) is None:
        return value
    try:
        converted = codec.decode(value, hint)
        found = value_check.problem(converted, hint)
    except codec.MismatchError as error:
        converted, found = None, str(error)
    if found is not None:
        raise InputError(f"{what} must be {hints.show(hint)}: {found}")
    return converted


def parse_text(text: str, hint: Any, what: str = "the value") -> Any:
    """Parse a text from the command line: as JSON if that fits the hint, else as the text itself.

    Paths become absolute, because steps run in folders of their own.

    Raises:
        InputError: neither fits.
    """
    # A Decimal keeps its digits only as text, and a duration has units.
    exact = {decimal.Decimal, datetime.timedelta} & {hints.class_of(one) for one in hints.members(hint)}
    for data in (*([text] if exact else []), *_as_json(text), text, *_python_literal(text)):
        try:
            value = _converted(data, hint)
        except codec.MismatchError:
            continue
        # In Python, True is an int; in a text for a number, it is a mistake.
        wrong_kind = isinstance(value, bool) and not {bool, Any} & {
            hints.class_of(one) or Any for one in hints.members(hint)
        }
        if not wrong_kind and value_check.problem(value, hint) is None:
            return value
    raise InputError(f"{what} must be {hints.show(hint)}, not {text!r}{_advice(hint)}")


def _as_json(text: str) -> tuple[Any, ...]:
    try:
        return (json.loads(text),)
    except (ValueError, RecursionError):
        return ()


def _python_literal(text: str) -> tuple[Any, ...]:
    """Python's literals that are not JSON."""
    return {"true": (True,), "false": (False,), "none": (None,)}.get(text.strip().lower(), ())


def _converted(data: Any, hint: Any) -> Any:
    if isinstance(data, str) and data and "://" not in data:
        for option in hints.members(hint):
            cls = hints.class_of(option)
            if cls is not None and issubclass(cls, PurePath):
                return Path(data).expanduser().absolute()
    if isinstance(data, str) and any(hints.class_of(option) is datetime.timedelta for option in hints.members(hint)):
        with suppress(ValueError, OverflowError):
            return datetime.timedelta(seconds=parse_duration(data))
    if isinstance(data, str) and any(hints.class_of(option) is str for option in hints.members(hint)):
        return data
    return codec.decode(data, hint)


def _advice(hint: Any) -> str:
    for option in hints.members(hint):
        cls = hints.class_of(option)
        if cls is bool:
            return ": write true or false"
        if cls is datetime.timedelta:
            return ": write seconds, or a number with a unit, such as 90s, 10m, 1h30m or 2d"
        if cls in (list, dict, tuple, set):
            return """: write JSON, such as '[1, 2]' or '{"a": 1}'"""
    return ""


def parse_inputs(pipeline: Parametrized, texts: Mapping[str, str]) -> dict[str, Any]:
    """The values of `-p name=text` options.

    Raises:
        InputError: a parameter is unknown, or a text does not fit its type.
    """
    _check_names(pipeline, texts)
    hinted = pipeline.hints
    return {name: parse_text(text, hinted[name], _what(pipeline, name)) for name, text in texts.items()}


def live_inputs(pipeline: Parametrized, values: Mapping[str, Any], elsewhere: Collection[str] = ()) -> dict[str, Any]:
    """Return the checked inputs of a run in this process, of any type, without defaults.

    `elsewhere` names parameters that are set in another way.

    Raises:
        InputError: a parameter is unknown or missing, or a value does not fit.
    """
    _check_names(pipeline, values)
    for name, parameter in pipeline.signature.inputs.items():
        if parameter.required and name not in values and name not in elsewhere:
            raise InputError(f"pipeline {pipeline.name!r} requires parameter {name!r} ({hints.show(parameter.hint)})")
    return {name: check_value(value, pipeline.hints[name], _what(pipeline, name)) for name, value in values.items()}


def check_inputs(pipeline: Parametrized, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a run as JSON by name, checked against the pipeline's parameters. Paths become absolute.

    Raises:
        InputError: a parameter is unknown or missing, or a value does not fit or cannot be stored as JSON.
    """
    return {
        name: to_json(value, pipeline.hints[name], _what(pipeline, name))
        for name, value in live_inputs(pipeline, values).items()
    }


def to_json(value: object, hint: Any, what: str = "the value") -> Any:
    """One input as JSON.

    Raises:
        InputError: it cannot be stored as JSON.
    """
    if isinstance(value, Path):
        value = value.absolute()
        if any(hints.class_of(option) is str for option in hints.members(hint)):
            # A parameter that takes both gets the more readable form.
            return str(value)
    try:
        return codec.plain(value, hint)
    except codec.NotJsonError as error:
        raise InputError(
            f"{what} must be plain data (it is sent as JSON), but {error}: pass a path or a URL, and load it in a step"
        ) from error


def _what(pipeline: Parametrized, name: str) -> str:
    return f"parameter {name!r} of pipeline {pipeline.name!r}"


def _check_names(pipeline: Parametrized, given: Mapping[str, Any]) -> None:
    known = list(pipeline.signature.inputs)
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f": did you mean {close[0]!r}?" if close else f" (its parameters: {', '.join(known) or 'none'})"
            raise InputError(f"pipeline {pipeline.name!r} has no parameter {name!r}{guess}")
