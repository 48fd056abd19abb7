"""The rule by which a contract may change under the same version: it only grows."""

from __future__ import annotations

from typing import Any

from penstock_core.errors import PenstockError

Schema = dict[str, Any]


class BreakingChangeError(PenstockError):
    """A contract changed in a way that breaks those who use it: it needs a new version."""


def breaks(old: Schema, new: Schema) -> list[str]:
    """Why readers or writers of `old` would fail with `new` under the same version; empty when they would not.

    Allowed: new fields with a default, new definitions, new kinds among several, other words. Not allowed: a field that
    is gone or has another type, a field that becomes required, a value of an enumeration that is gone.
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
        elif not _grew(_shape(field), _shape(new["properties"][name])):
            found.append(f"{where}.{name} has another type")
    gone = [value for value in old.get("enum", ()) if value not in new.get("enum", ())]
    return found + [f"{where}: value {value!r} is gone" for value in gone]


def _grew(old: Any, new: Any) -> bool:
    """Whether a shape is the same but for new kinds where it was one of several already."""
    if isinstance(old, dict) and isinstance(new, dict):
        several = "anyOf" in old and "anyOf" in new
        if several and not all(any(_grew(one, other) for other in new["anyOf"]) for one in old["anyOf"]):
            return False
        names = old.keys() - ({"anyOf"} if several else set())
        return old.keys() == new.keys() and all(_grew(old[name], new[name]) for name in names)
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(_grew(one, other) for one, other in zip(old, new, strict=True))
    return bool(old == new)


def _shape(field: Any) -> Any:
    """A field's schema without its words and its default."""
    if isinstance(field, dict):
        return {k: _shape(v) for k, v in field.items() if k not in ("description", "title", "default", "examples")}
    return [_shape(item) for item in field] if isinstance(field, list) else field
