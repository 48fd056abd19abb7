"""The cache key of a step call: a digest of everything its result may depend on, and the digests of its parts.

The key finds an earlier result; the parts tell people why there is none, by what differs from the nearest one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from penstock_core.pipeline import values
from penstock_core.pipeline.values import Value

PART = 32
"""Hexadecimal digits of the digest of a part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What goes into a key.

    Attributes:
        code: digest of the project modules that the step's module imports.
        bundle: digest of the whole source bundle, where that counts; see `needs_bundle`.
        environment: see `environment`.
        entrypoint: `module:function` of the step.
        inputs: the value of each input by name; artifacts count by their digest.
        salt: the user's part.
    """

    code: str
    bundle: str = ""
    environment: str
    entrypoint: str
    inputs: Mapping[str, Value]
    salt: str = ""


def key(parts: Parts) -> str | None:
    """The key as a SHA-256 in hexadecimal, or None where an input is known by reference only."""
    if unknown(parts):
        return None
    inputs = {name: _identity(value) for name, value in sorted(parts.inputs.items())}
    return _digest([2, parts.code, parts.bundle, parts.environment, parts.entrypoint, parts.salt, inputs])


def digests(parts: Parts) -> dict[str, str]:
    """A digest of each part: `code`, `environment`, `salt`, `input NAME` of each input, and `bundle` where it counts.

    Only for calls with a key.

    Two calls of one entry point have the same key exactly when all of these are equal.
    """
    found = {"code": parts.code, "environment": parts.environment, "salt": parts.salt}
    if parts.bundle:
        found["bundle"] = parts.bundle
    short = {name: _digest(text)[:PART] for name, text in found.items()}
    return short | {f"input {name}": _digest(_identity(value))[:PART] for name, value in sorted(parts.inputs.items())}


def unknown(parts: Parts) -> list[str]:
    """The inputs that are known only by reference."""
    return [name for name, value in sorted(parts.inputs.items()) if _by_reference(value)]


def needs_bundle(dynamic_code: str, inputs: Mapping[str, Value]) -> str:
    """Why the whole source bundle counts for a call, because the step may run other modules; empty where it does not.

    Loading an input that contains objects of project classes imports their modules, which the step's own module need
    not import.
    """
    if dynamic_code:
        return dynamic_code
    named = next((name for name, value in sorted(inputs.items()) if has_project_types(value)), None)
    return "" if named is None else f"input {named!r} contains objects of project classes"


def has_project_types(value: Value) -> bool:
    """Whether a value may contain objects of project classes."""
    match value:
        case values.Inline(inline):
            return _names_class(inline)
        case values.Stored(artifact):
            return artifact.project_types
        case values.ResultOf() | values.Collected():
            return True
        case _:
            return any(map(has_project_types, values.components(value)))


def _names_class(data: object) -> bool:
    """Whether plain data has the tag `"$type": "module:Class"` of the SDK's codec."""
    waiting = [data]
    while waiting:  # not by recursion: users nest as deep as they like
        match waiting.pop():
            case dict() as fields:
                if isinstance(tag := fields.get("$type"), str) and ":" in tag:
                    return True
                waiting += fields.values()
            case list() as items:
                waiting += items
            case _:
                pass
    return False


def environment(digest: str, variables: Mapping[str, str]) -> str:
    """The environment as a part: what is installed, and the variables that the step asks for."""
    return _digest([digest, dict(sorted(variables.items()))]) if variables else digest


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _by_reference(value: Value) -> bool:
    match value:
        case values.ResultOf() | values.Collected():
            return True
        case _:
            return any(map(_by_reference, values.components(value)))


def _identity(value: Value) -> object:
    """JSON that is equal exactly for equal values; the kind is part of it, so 1 and an artifact holding 1 differ."""
    match value:
        case values.Inline(inline):
            return ["value", inline]
        case values.Stored(artifact):
            return ["artifact", artifact.sha256, artifact.format]
        case values.Items(items):
            return ["items", [_identity(item) for item in items]]
        case values.Lists(lists):
            return ["lists", [_identity(one) for one in lists]]
        case values.Fields(fields):
            return ["fields", {name: _identity(item) for name, item in fields.items()}]
        case values.Element(of, path):
            return ["element", _identity(of), list(path)]
        case values.ResultOf() | values.Collected():
            raise LookupError("the input is known only by reference")
