"""The inputs of a run as the API takes them: plain data as JSON, all else as artifacts that are uploaded first."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.client.models import ModelVersion
from penstock_core.errors import InputError

if TYPE_CHECKING:
    from penstock.client.client import Client

_INLINE_LIMIT = 16_000


def inputs(client: Client, values: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of inputs by name.

    Raises:
        InputError: a value holds files, tables or arrays among others.
    """
    return {name: _input(client, name, value) for name, value in values.items()}


def _input(client: Client, name: str, value: Any) -> Any:
    if isinstance(value, ModelVersion):
        return {"artifact": value.artifact}
    if _is_plain(value):
        return value
    # Only for those who have more than numbers and texts.
    from penstock import serialize
    from penstock.store import FolderStore

    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        store = FolderStore(folder)
        saved = serialize.save(value, Any, store, where=f"input {name!r}")
        match saved:
            case {"value": plain}:
                return plain
            case {"artifact": {"sha256": sha256} as reference}:
                # A folder's manifest comes after what it names.
                for part in [*serialize.parts(reference, store), sha256]:
                    client.upload(store.path(part), part)
                return saved
            case _:
                raise InputError(
                    f"input {name!r} is a {type(value).__name__} that holds files, tables or arrays: "
                    "give each of them as an input of its own"
                )


def _is_plain(value: Any) -> bool:
    """Whether a value is JSON as it stands, without a closer look."""
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
