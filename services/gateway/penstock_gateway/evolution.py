"""The rule by which a contract may change under the same version: it only grows."""

from __future__ import annotations

from typing import Any

from penstock_core.errors import PenstockError

Schema = dict[str, Any]


class Breaking(PenstockError):
    """A contract changed in a way that breaks those who use it: it needs a new version."""


def breaks(old: Schema, new: Schema) -> list[str]:
    """Why readers or writers of `old` would fail with `new` under the same version; empty when they would not.

    Allowed: new fields with a default, new definitions, other words. Not allowed: a field that is gone or has another
    type, a field that becomes required, a value of an enumeration that is gone.
    """
    found = _breaks(old, new, "")
    for name in old.get("$defs", {}):
        if name not in new.get("$defs", {}):
            found.append(f"definition {name} is gone")
        else:
            found += _breaks(old["$defs"][name], new["$defs"][name], name)
    return found


def _breaks(old: Schema, new: Schema, where: str) -> list[str]:
    demanded = sorted(set(new.get("required", ())) - set(old.get("required", ())))
    found = [f"{where}.{name} became required" for name in demanded]
    for name, field in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            found.append(f"{where}.{name} is gone")
        elif _shape(field) != _shape(new["properties"][name]):
            found.append(f"{where}.{name} has another type")
    gone = [value for value in old.get("enum", ()) if value not in new.get("enum", ())]
    return found + [f"{where}: value {value!r} is gone" for value in gone]


def _shape(field: Any) -> Any:
    """A field's schema without its words and its default."""
    if isinstance(field, dict):
        return {k: _shape(v) for k, v in field.items() if k not in ("description", "title", "default", "examples")}
    return [_shape(item) for item in field] if isinstance(field, list) else field
