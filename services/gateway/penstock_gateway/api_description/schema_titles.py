"""JSON Schemas without the titles that pydantic derives."""

from __future__ import annotations

from typing import Any, cast


def tidy(schema: Any, *, named: bool = False) -> Any:
    """Return a schema without the titles that pydantic derives from field names.

    `named` means that `schema` maps names to schemas, so a field called `title` stays.
    """
    if isinstance(schema, list):
        return [tidy(item) for item in cast("list[Any]", schema)]
    if not isinstance(schema, dict):
        return schema
    found: dict[str, Any] = {}
    for key, value in cast("dict[str, Any]", schema).items():
        if key == "title" and not named and "properties" not in schema and "enum" not in schema:
            continue
        if key in ("default", "enum", "const", "examples", "required") and not named:
            found[key] = value
        else:
            found[key] = tidy(value, named=not named and key in ("properties", "$defs", "patternProperties"))
    return found
