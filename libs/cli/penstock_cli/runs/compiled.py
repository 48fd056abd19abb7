"""A registered pipeline, read from the platform where its source is not at hand: enough to show it and to ask for it.

In: the compiled pipeline as JSON. Out: the pipeline as the display needs it, and inputs read as its parameters say.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from penstock.client import views
from penstock_core.errors import InputError
from penstock_core.pipeline.ir import Node, Pipeline, Retry, StepSpec

Json = Mapping[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}
_WORDS = {"true": True, "false": False, "none": None}


def outline(compiled: Json) -> Pipeline:
    """The pipeline without its values: its steps with their retries, and who waits for whom."""
    nodes = tuple(
        Node(
            key=node["key"], step=node["step"], after=tuple(dict.fromkeys([*_sources(node["inputs"]), *node["after"]]))
        )
        for node in compiled["nodes"]
    )
    steps = {name: _spec(name, spec) for name, spec in compiled["steps"].items()}
    return Pipeline(name=compiled["name"], nodes=nodes, steps=steps)


def _spec(name: str, spec: Json) -> StepSpec:
    retry = views.build(Retry, spec.get("retry") or {})
    return StepSpec(
        name=name,
        entrypoint=spec.get("entrypoint", ""),
        pool=spec.get("pool", "default"),
        timeout=spec.get("timeout"),
        retry=dataclasses.replace(retry, on=tuple(retry.on)),
    )


def _sources(bindings: Json) -> Iterator[str]:
    """The nodes whose outputs bindings read."""
    for binding in bindings.values():
        match binding:
            case {"node": str(key)}:
                yield key
            case {"items": list() as items}:
                yield from _sources(dict(enumerate(cast("list[Any]", items))))  # type: ignore[arg-type]
            case {"fields": dict() as fields}:
                yield from _sources(cast("dict[str, Any]", fields))
            case _:
                pass


def parse(params: Sequence[Json], given: Sequence[str]) -> dict[str, Any]:
    """The inputs of `-p name=value` options, read as the parameters of a registered pipeline say.

    What does not fit goes to the platform as it was typed, which refuses it by name.

    Raises:
        InputError: an option is not of that form, is given twice, or names a file that is not there.
    """
    ports = {port["name"]: port for port in params}
    inputs: dict[str, Any] = {}
    for item in given:
        name, equals, text = item.partition("=")
        name = name.strip()
        if not equals:
            raise InputError(f"-p {item!r} is not of the form name=value")
        if name in inputs:
            raise InputError(f"parameter {name!r} is given twice")
        inputs[name] = _read(name, text, ports.get(name, {}))
    return inputs


def _read(name: str, text: str, port: Json) -> Any:
    schema = port.get("schema")
    if schema is None and "Path" in re.findall(r"\w+", port.get("type", "")) and "://" not in text:
        path = Path(text).expanduser().absolute()
        if not path.exists():
            raise InputError(f"parameter {name!r}: there is no file or folder {path}")
        return path
    if text.startswith("@") and not _takes_text(schema):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"parameter {name!r}: cannot read {text[1:]}: {error}") from error
    for value in (*_as_json(text), text, *_as_word(text)):
        if _fits(value, schema):
            return value
    return next(_as_json(text), text)


def _as_json(text: str) -> Iterator[Any]:
    try:
        yield json.loads(text)
    except (ValueError, RecursionError):
        return


def _as_word(text: str) -> Iterator[Any]:
    """Python's own words, which are no JSON."""
    word = text.strip().lower()
    if word in _WORDS:
        yield _WORDS[word]


def _takes_text(schema: Json | None) -> bool:
    """Whether texts are values of a schema; a text may well begin with @."""
    if schema is None:
        return False
    if "anyOf" in schema:
        return any(_takes_text(option) for option in schema["anyOf"])
    return "enum" in schema or _fits("", schema)


def _fits(value: Any, schema: Json | None) -> bool:
    """Whether a value is of a type that the schema has; the platform looks closer."""
    if schema is None:
        return True
    if "anyOf" in schema:
        return any(_fits(value, option) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    names = schema.get("type")
    names = [names] if isinstance(names, str) else names or list(_TYPES)
    kinds = tuple(kind for name in names for kind in _TYPES.get(name, ()))
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
