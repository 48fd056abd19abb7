"""The cache key of a step call: a digest of everything its result may depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from penstock_core import values
from penstock_core.values import Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What goes into a key. `inputs` maps each input's name to its value; artifacts count by their digest."""

    code: str
    environment: str
    entrypoint: str
    inputs: Mapping[str, Value]
    salt: str = ""


def key(parts: Parts) -> str | None:
    """The key as a SHA-256 in hexadecimal, or None when it cannot be computed (an input known only by reference)."""
    try:
        inputs = {name: _identity(value) for name, value in sorted(parts.inputs.items())}
    except LookupError:
        return None
    text = json.dumps(
        [1, parts.code, parts.environment, parts.entrypoint, parts.salt, inputs], sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(text.encode()).hexdigest()


def _identity(value: Value) -> object:
    """JSON that is equal exactly for equal values; the kind is part of it, so 1 and an artifact holding 1 differ."""
    match value:
        case values.Inline(inline):
            return ["value", inline]
        case values.Stored(artifact):
            return ["artifact", artifact.sha256, artifact.format]
        case values.Items(items):
            return ["items", [_identity(item) for item in items]]
        case values.Fields(fields):
            return ["fields", {name: _identity(item) for name, item in fields.items()}]
        case values.Element(of, path):
            return ["element", _identity(of), list(path)]
        case values.Earlier() | values.Collected():
            raise LookupError("the input is known only by reference")
