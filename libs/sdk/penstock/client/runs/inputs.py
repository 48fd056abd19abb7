"""Encodes the inputs of a run for the API: plain data as JSON, everything else as uploaded artifacts."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from typing import Any

from penstock.client.artifacts.artifacts import Artifacts
from penstock_core.errors import InputError

_INLINE_LIMIT = 16_000


def encode_inputs(artifacts: Artifacts, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs as JSON by name, after uploading those that are artifacts.

    Raises:
        InputError: a value contains files, tables or arrays among other data.
    """
    return {name: _encode(artifacts, name, value) for name, value in values.items()}


def _encode(artifacts: Artifacts, name: str, value: Any) -> Any:
    if _is_plain(value):
        return value
    # Imported only for values that are more than numbers and texts.
    from penstock import serialize
    from penstock.client.models import ModelVersion
    from penstock.interactive import main_classes
    from penstock.store import FolderStore

    if isinstance(value, ModelVersion):
        return {"artifact": value.artifact}
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder, main_classes.named_for_steps():
        store = FolderStore(folder)
        saved = serialize.save(value, Any, store, where=f"input {name!r}")
        match saved:
            case {"value": plain}:
                return plain
            case {"artifact": {"sha256": sha256} as reference}:
                # The manifest of a folder is uploaded after the files it refers to.
                for part in [*serialize.parts(reference, store), sha256]:
                    artifacts.upload(store.path(part), part)
                return saved
            case _:
                raise InputError(
                    f"input {name!r} is a {type(value).__name__} that contains files, tables or arrays: "
                    "pass each of them as a separate input"
                )


def _is_plain(value: Any) -> bool:
    """Whether a value is JSON as it is; containers are left to the serializers."""
    match value:
        case None | bool():
            return True
        case int():
            return type(value) is int and -(1 << 63) <= value < 1 << 63
        case float():
            return type(value) is float and math.isfinite(value)
        case str():
            return type(value) is str and len(value) < _INLINE_LIMIT
        case {"artifact": {"sha256": _}}:
            return True
        case _:
            return False
