"""Read the texts that people write for parameters, `-p depth=3`, as JSON values by the parameter's JSON Schema.

Numbers are read as Python reads them: `.5`, `1.`, `+5`, `1e-3`, `nan`. A parameter that takes text and nothing else
gets the text as it is, with its quotes; where it takes other types, too, quotes keep a text from being read as one of
these: `-p id='"3"'` is text for `int | str`. Lists and objects are JSON or literals of Python. Texts with a format,
such as dates, durations and decimals, stay text, and every digit of a decimal is kept.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any, cast

from penstock_core import json_schema
from penstock_core.errors import InputError
from penstock_core.json_schema import Schema

_WORDS: dict[str, Any] = {"null": None, "none": None, "true": True, "false": False}


class _ExactNumber(float):
    """A number with the digits in which it was written."""

    text: str

    def __new__(cls, text: str) -> _ExactNumber:
        made = super().__new__(cls, text)
        made.text = text
        return made


def parse(text: str, schema: Any) -> Any:
    """Return the value of a text: one that the schema accepts, if there is any, else the text.

    Raises:
        InputError: it is meant to be JSON, but is not.
    """
    options = json_schema.alternatives(schema)
    if not any(options):
        return _untyped(text)
    for value in _candidates(text, options):
        if json_schema.mismatch(value, schema) is None:
            return value
    if text.lstrip()[:1] in ("{", "[") and any(_is(option, "object", "array") for option in options):
        return _exact(_container(text), schema, schema)
    return _number(text) if any(_is(option, "integer", "number") for option in options) else text


def _untyped(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _candidates(text: str, options: list[Schema]) -> Iterator[Any]:
    """Yield what a text may be, the most specific first."""
    kinds = {str(option.get("type")) for option in options}
    takes_text = any(_is(option, "string") and "format" not in option for option in options)
    if any("enum" in option or "const" in option for option in options):
        yield from _literals(text)
    if any("format" in option for option in options):
        yield text
    yield from _words(text, kinds)
    if not takes_text or _is_json_number(text):
        yield from _read(int, text) if "integer" in kinds else ()
        yield from _read(float, text) if "number" in kinds else ()
    if text.lstrip()[:1] in ("{", "[", "("):
        for option in options:
            yield from _contained(text, option) if _is(option, "array", "object") else ()
    quoted = _quoted(text) if kinds != {"string"} or not takes_text else None
    if quoted is not None and (not takes_text or _reads_as_other(quoted, options)):
        yield quoted
    yield text


def _words(text: str, kinds: set[str]) -> Iterator[Any]:
    """Yield null, true or false, in the spelling of JSON or of Python."""
    word = text.strip().lower()
    if word in _WORDS and ("null" if _WORDS[word] is None else "boolean") in kinds:
        yield _WORDS[word]


def _is(option: Schema, *names: str) -> bool:
    return option.get("type") in names


def _literals(text: str) -> Iterator[Any]:
    """Yield what may be a member of an enumeration."""
    yield text
    word = text.strip().lower()
    if word in _WORDS:
        yield _WORDS[word]
    for read in (json.loads, int, float):
        yield from _read(read, text)


def _read(read: Any, text: str) -> Iterator[Any]:
    try:
        yield read(text)
    except (ValueError, RecursionError, OverflowError):
        return


def _is_json_number(text: str) -> bool:
    found = next(_read(json.loads, text), None)
    return isinstance(found, int | float) and not isinstance(found, bool)


def _quoted(text: str) -> str | None:
    """The text inside of quotes, of JSON or Python."""
    if text[:1] not in ("'", '"'):
        return None
    found = next(_read(json.loads, text), None)
    if found is None:
        found = next(_literal(text), None)
    return found if isinstance(found, str) else None


def _reads_as_other(text: str, options: list[Schema]) -> bool:
    """Whether a text without its quotes would be read as another type than text."""
    return not isinstance(next(_candidates(text, options), text), str)


def _number(text: str) -> Any:
    """A number where it was meant as one, so that the error shows it as such: `3.5` for an integer."""
    found = next(_read(json.loads, text), text)
    return text if isinstance(found, list | dict | str | None) else found


# ------------------------------------------------------------------------------------------------ lists and objects


def _contained(text: str, schema: Schema) -> Iterator[Any]:
    try:
        yield _exact(_container(text), schema, schema)
    except InputError:
        return


def _container(text: str) -> Any:
    """A list or an object, as JSON or as a literal of Python."""
    try:
        return json.loads(text, parse_float=_ExactNumber)
    except RecursionError:
        raise InputError("the JSON is nested too deeply") from None
    except ValueError as error:
        for found in _literal(text):
            return found
        raise InputError(f"not valid JSON: {error}") from error


def _literal(text: str) -> Iterator[Any]:
    try:
        yield _evaluated(ast.parse(text.strip(), mode="eval").body, text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return


def _evaluated(node: ast.expr, source: str) -> Any:
    """The value of a literal; `ast.literal_eval` would round its decimals."""
    match node:
        case ast.List(several) | ast.Tuple(several) | ast.Set(several):
            return [_evaluated(one, source) for one in several]
        case ast.Dict(keys, several) if None not in keys:
            names = [str(_evaluated(key, source)) for key in keys if key is not None]
            return dict(zip(names, (_evaluated(one, source) for one in several), strict=True))
        case ast.UnaryOp(ast.USub() | ast.UAdd(), ast.Constant(int() | float())) | ast.Constant(float()):
            text = "".join((ast.get_source_segment(source, node) or "").split())
            return _ExactNumber(text) if isinstance(ast.literal_eval(node), float) else int(text)
        case ast.Constant(None | bool() | int() | str() as value):
            return value
        case _:
            raise ValueError("not a literal that JSON has")


def _exact(value: Any, schema: Any, root: Any) -> Any:
    """Write numbers as their text where the schema takes decimals; elsewhere they are plain numbers."""
    root = schema if isinstance(schema, dict) and "$defs" in schema else root
    options = json_schema.alternatives(schema, root)
    if isinstance(value, _ExactNumber):
        exact = any(option.get("format") == "decimal" for option in options)
        return value.text if exact else float(value)
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_exact(one, _item(options, n), root) for n, one in enumerate(items)]
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        return {name: _exact(one, _field(options, name), root) for name, one in entries.items()}
    return value


def _item(options: list[Schema], n: int) -> Any:
    for option in options:
        first: Any = option.get("prefixItems")
        if isinstance(first, list) and n < len(cast("list[Any]", first)):
            return cast("list[Any]", first)[n]
        if "items" in option:
            return option["items"]
    return None


def _field(options: list[Schema], name: str) -> Any:
    for option in options:
        known: Any = option.get("properties")
        if isinstance(known, dict) and name in known:
            return cast("dict[str, Any]", known)[name]
        if isinstance(option.get("additionalProperties"), dict):
            return option["additionalProperties"]
    return None
