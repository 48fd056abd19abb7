"""`-p name=value`: from the text that was typed to the JSON value that the pipeline's parameter takes.

The parameter's JSON Schema, where it has one, says how a text is read; without one, what parses as JSON is JSON and
everything else is text. `name=@file` reads the value from a file.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock_core.errors import InputError
from penstock_core.ir import Pipeline, Port

_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def parse(pipeline: Pipeline, given: Sequence[str]) -> dict[str, Any]:
    """The inputs of a run.

    Raises:
        InputError: a name is unknown or missing, or a value does not fit; with what the pipeline takes.
    """
    ports = {port.name: port for port in pipeline.params}
    inputs: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals:
            raise InputError(f"-p {item!r} is not of the form name=value")
        if name not in ports:
            raise InputError(f"pipeline {pipeline.name!r} has no input {name!r}{_hint(name, ports)}")
        if name in inputs:
            raise InputError(f"input {name!r} is given twice")
        inputs[name] = _value(ports[name], text)
    missing = [port for port in pipeline.params if port.required and port.name not in inputs]
    if missing:
        wanted = ", ".join(f"{port.name} ({port.type})" for port in missing)
        example = " ".join(f"-p {port.name}=…" for port in missing)
        where = f"{pipeline.file}:{pipeline.line}: " if pipeline.file else ""
        raise InputError(f"{where}pipeline {pipeline.name!r} needs {wanted}: add {example}")
    return inputs


def _hint(name: str, ports: dict[str, Port]) -> str:
    close = difflib.get_close_matches(name, ports, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f" (it takes: {', '.join(ports) or 'none'})"


def _value(port: Port, text: str) -> Any:
    if text.startswith("@") and not _is(port, "string"):
        file = Path(text[1:])
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"input {port.name!r}: cannot read {file}: {error}") from error
    if port.type in ("Path", "pathlib.Path"):
        return str(Path(text).absolute())
    kinds = _kinds(port)
    if kinds == {"string"}:
        return text
    value = _read(text, kinds)
    if kinds and not _fits(value, kinds):
        raise InputError(f"input {port.name!r} must be {port.type}, not {text[:100]!r}")
    return value


def _read(text: str, kinds: set[str]) -> Any:
    if "boolean" in kinds and text.lower() in _WORDS and not kinds & {"integer", "number", "string"}:
        return _WORDS[text.lower()]
    if "null" in kinds and text in ("None", "null"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return text
    # `-p city=1e3` for a `str | None` stays text.
    return text if "string" in kinds and not _fits(value, kinds) else value


def _is(port: Port, kind: str) -> bool:
    return _kinds(port) == {kind}


def _kinds(port: Port) -> set[str]:
    """The JSON types that a parameter takes; empty when anything goes."""
    schema = port.schema or {}
    found: set[str] = set()
    for part in [schema, *schema.get("anyOf", ())]:
        kind = part.get("type")
        found |= {kind} if isinstance(kind, str) else set(kind or ())
    if any("$ref" in part or not part.get("type") for part in schema.get("anyOf", ())):
        return set()
    return found & set(_TYPES)


def _fits(value: Any, kinds: set[str]) -> bool:
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _TYPES[kind]) for kind in kinds)
