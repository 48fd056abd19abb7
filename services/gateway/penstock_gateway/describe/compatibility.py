"""The compatibility rule of contracts: under the same version, a contract may only grow."""

from __future__ import annotations

from typing import Any

from penstock_core.errors import PenstockError

Schema = dict[str, Any]


class BreakingChangeError(PenstockError):
    """A contract changed incompatibly: it needs a new version."""


def breaks(old: Schema, new: Schema) -> list[str]:
    """Return why `new` is incompatible with readers or writers of `old`; empty if it is compatible.

    Allowed: new optional fields, new definitions, new alternatives in `anyOf`, other descriptions. Not allowed: removed
    fields, changed types, fields that become required, removed values of an enumeration.
    """
    found = _breaks(old, new, "")
    for name in old.get("$defs", {}):
        if name not in new.get("$defs", {}):
            found.append(f"definition {name} was removed")
        else:
            found += _breaks(old["$defs"][name], new["$defs"][name], name)
    return found


def _breaks(old: Schema, new: Schema, where: str) -> list[str]:
    demanded = sorted(set(new.get("required", ())) - set(old.get("required", ())))
    found = [f"{where}.{name} became required" for name in demanded]
    for name, field in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            found.append(f"{where}.{name} was removed")
        elif not _grew(_shape(field), _shape(new["properties"][name])):
            found.append(f"{where}.{name} has a changed type")
    removed = [value for value in old.get("enum", ()) if value not in new.get("enum", ())]
    return found + [f"{where}: value {value!r} was removed" for value in removed]


def _grew(old: Any, new: Any) -> bool:
    """Return whether a shape is equal except for new alternatives of an `anyOf`."""
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
    """Return a field's schema without descriptions and default."""
    if isinstance(field, dict):
        return {k: _shape(v) for k, v in field.items() if k not in ("description", "title", "default", "examples")}
    return [_shape(item) for item in field] if isinstance(field, list) else field
