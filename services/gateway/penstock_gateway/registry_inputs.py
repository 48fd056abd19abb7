"""Inputs of runs that name registered models: pinned, when the run is asked for, to the artifact that is meant now.

So a run says for ever which version it had, results are cached by its content, and lineage knows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

from penstock_core.errors import InvalidId
from penstock_core.ir import Port
from penstock_core.registry.errors import NotThere
from penstock_core.registry.references import PREFIX, parse
from penstock_gateway import inputs
from penstock_gateway.problems import InvalidInputs
from penstock_gateway.registry import Registry


async def pinned(registry: Registry, params: Sequence[Port], given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs, where those that name a model name its artifact instead.

    A model is named by `{"artifact": {"model": "churn@champion"}}`, or by the text `model:churn@champion` where the
    parameter takes no texts.

    Raises:
        InvalidInputs: names the inputs whose model is not there.
    """
    ports = {port.name: port for port in params}
    found = dict(given)
    errors: list[tuple[str, str]] = []
    for name, value in given.items():
        text = _named(value, ports.get(name))
        if text is None:
            continue
        try:
            version = await registry.find(parse(text))
            found[name] = {"artifact": dataclasses.asdict(version.artifact)}
        except (InvalidId, NotThere) as error:
            errors.append((f"inputs.{name[:100]}", f"names no registered model: {error}"))
    if errors:
        raise InvalidInputs("An input names a model that is not there", errors)
    return found


def _named(value: Any, port: Port | None) -> str | None:
    """The model that an input names, as text; None where it names none."""
    match value:
        case {"artifact": {"model": str(text), **rest}} if not rest and len(cast("dict[str, Any]", value)) == 1:
            return text.removeprefix(PREFIX)
        case str() if value.startswith(PREFIX) and port is not None and not _takes_text(port):
            return value.removeprefix(PREFIX)
        case _:
            return None


def _takes_text(port: Port) -> bool:
    return isinstance(port.schema, dict) and bool(port.schema) and inputs.mismatch("", port.schema) is None
