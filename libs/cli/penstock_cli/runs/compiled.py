"""Registered pipelines whose source is not on this machine.

Builds the pipeline that the progress view needs from its definition as JSON, and parses inputs by its parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from penstock.client import views
from penstock_cli.arguments import parse_pairs, suggest_models
from penstock_core import json_schema, parameter_texts
from penstock_core.errors import InputError
from penstock_core.pipeline.ir import MapSpec, Node, Phase, Pipeline, Retry, Rule, StepSpec

Json = Mapping[str, Any]


def outline(compiled: Json) -> Pipeline:
    """Build the pipeline without its values: what the states of its steps depend on."""
    steps = {name: _spec(name, spec) for name, spec in compiled["steps"].items()}
    return Pipeline(name=compiled["name"], nodes=tuple(_node(node) for node in compiled["nodes"]), steps=steps)


def _node(node: Json) -> Node:
    mapped = node.get("mapped")
    return Node(
        key=node["key"],
        step=node["step"],
        after=tuple(dict.fromkeys([*_sources(node["inputs"]), *node["after"]])),
        rule=Rule(node.get("rule") or Rule.ALL_SUCCEEDED),
        phase=Phase(node.get("phase") or Phase.MAIN),
        mapped=views.build(MapSpec, mapped, over=tuple(mapped["over"])) if mapped else None,
    )


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
    """Yield the keys of the nodes whose outputs the bindings refer to."""
    for binding in bindings.values():
        match binding:
            case {"node": str(key)}:
                yield key
            case {"items": list() as items} | {"lists": list() as items}:
                yield from _sources(dict(enumerate(cast("list[Any]", items))))  # type: ignore[arg-type]
            case {"fields": dict() as fields}:
                yield from _sources(cast("dict[str, Any]", fields))
            case _:
                pass


def parse(params: Sequence[Json], given: Sequence[str]) -> dict[str, Any]:
    """Parse `-p NAME=VALUE` options by the parameters of a registered pipeline.

    Values that do not fit are sent as they were typed, and rejected by the platform.

    Raises:
        UsageError: an option has another form, or is repeated.
        InputError: an option names a file that does not exist.
    """
    ports = {port["name"]: port for port in params}
    texts = parse_pairs("-p", given, unique=True)
    with suggest_models(texts):
        return {name: _read(name, text, ports.get(name, {})) for name, text in texts.items()}


def _read(name: str, text: str, port: Json) -> Any:
    schema = port.get("schema")
    if text and "://" not in text and any(one.get("format") == "path" for one in json_schema.alternatives(schema)):
        path = Path(text).expanduser().absolute()
        if not path.exists():
            raise InputError(f"parameter {name!r}: no such file or folder: {path}")
        return path
    if text.startswith("@") and not json_schema.takes_text(schema):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"parameter {name!r}: cannot read {text[1:]}: {error}") from error
    try:
        return parameter_texts.parse(text, schema)
    except InputError as error:
        raise InputError(f"inputs.{name}: {error}") from error
