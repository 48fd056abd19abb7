"""Inputs of a run: parse texts, check values against a pipeline's parameters, encode them as JSON.

For the command line: `parse_inputs(pipeline, {"depth": "3"})`, then `check_inputs(pipeline, …)`, whose result is what
`POST /v1/runs` takes. For Python: `check_inputs` alone. Defaults are not filled in; the platform does that. Errors are
those with which the platform rejects a request, see `penstock_core.requests`.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePath
from typing import Any

from penstock import codec, hints
from penstock.hints import json_schema, value_check
from penstock.hints.signature import Parametrized
from penstock_core import json_schema as schema_check
from penstock_core import parameter_texts, requests
from penstock_core.errors import InputError, InvalidInputsError
from penstock_core.json_schema import Problem

_PROBLEMS_SHOWN = 20


def check_value(value: object, hint: Any, what: str = "the value") -> Any:
    """Return `value` if it fits the hint, else converted from plain data where that is lossless.

    Raises:
        InputError: it does not fit; the message names the part that does not.
    """
    converted, problems = _checked(value, hint)
    if problems:
        raise InputError("; ".join(f"{what}{path}: {message}" for path, message in problems))
    return converted


def parse_text(text: str, hint: Any, what: str = "the value") -> Any:
    """Parse a text from the command line, see `penstock_core.parameter_texts`.

    Paths become absolute, because steps run in folders of their own.

    Raises:
        InputError: it does not fit the hint; the message names the part that does not.
    """
    value, problems = _parsed(text, hint)
    if problems:
        raise InputError("; ".join(f"{what}{path}: {message}" for path, message in problems))
    return value


def parse_inputs(pipeline: Parametrized, texts: Mapping[str, str], elsewhere: Collection[str] = ()) -> dict[str, Any]:
    """The values of `-p name=text` options. `elsewhere` names parameters that are set in another way.

    Raises:
        InvalidInputsError: a parameter is unknown or missing, or a text does not fit its type.
    """
    normal = {unicodedata.normalize("NFKC", name): text for name, text in texts.items()}
    return _inputs(pipeline, normal, elsewhere, _parsed)


def live_inputs(pipeline: Parametrized, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked inputs of a run in this process, of any type, without defaults.

    Raises:
        InvalidInputsError: a parameter is unknown or missing, or a value does not fit.
    """
    return _inputs(pipeline, values, (), _checked)


def _inputs(
    pipeline: Parametrized,
    given: Mapping[str, Any],
    elsewhere: Collection[str],
    read: Callable[[Any, Any], tuple[Any, list[Problem]]],
) -> dict[str, Any]:
    known = dict.fromkeys(pipeline.signature.inputs)
    problems = [
        (f"inputs.{name[:100]}", schema_check.unknown(name, known, "parameter")) for name in given if name not in known
    ]
    values: dict[str, Any] = {}
    for name, parameter in pipeline.signature.inputs.items():
        if name in given:
            values[name], wrong = read(given[name], parameter.hint)
            problems += [(f"inputs.{name}{path}", message) for path, message in wrong]
        elif parameter.required and name not in elsewhere:
            problems.append((f"inputs.{name}", requests.missing(hints.show(parameter.hint))))
    if problems:
        raise InvalidInputsError(requests.invalid(pipeline.name), problems)
    return {name: values[name] for name in given}


def check_inputs(pipeline: Parametrized, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a run as JSON by name, checked against the pipeline's parameters. Paths become absolute.

    Raises:
        InputError: a parameter is unknown or missing, or a value does not fit or cannot be stored as JSON.
    """
    return {
        name: to_json(value, pipeline.hints[name], f"parameter {name!r} of pipeline {pipeline.name!r}")
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


def _parsed(text: str, hint: Any) -> tuple[Any, list[Problem]]:
    if text and "://" not in text and any(_is_path(option) for option in hints.members(hint)):
        return Path(text).expanduser().absolute(), []
    schema = json_schema.schema(hint)
    try:
        data = parameter_texts.parse(text, schema)
    except InputError as error:
        return None, [("", str(error))]
    return _converted(data, hint, schema)


def _is_path(option: Any) -> bool:
    cls = hints.class_of(option)
    return cls is not None and issubclass(cls, PurePath)


def _checked(value: object, hint: Any) -> tuple[Any, list[Problem]]:
    found = value_check.problem(value, hint)
    if found is None:
        return value, []
    schema = json_schema.schema(hint)
    try:
        data = codec.encode(value, hint)
    except codec.NotJsonError:
        data = value
    converted, problems = _converted(data, hint, schema)
    if any(message.startswith("expected ") or path for path, message in problems):
        return converted, problems
    return converted, [("", f"expected {hints.show(hint)}: {found}")] if problems else []


def _converted(data: Any, hint: Any, schema: Any) -> tuple[Any, list[Problem]]:
    """The value of plain data, or what is wrong with it."""
    problems = list(itertools.islice(schema_check.problems(data, schema), _PROBLEMS_SHOWN))
    if problems:
        return None, problems
    try:
        value = codec.decode(data, hint)
        found = value_check.problem(value, hint)
    except codec.MismatchError as error:
        return None, [(error.path, error.message)]
    return value, [("", f"expected {hints.show(hint)}: {found}")] if found is not None else []
