"""Checks data of events against JSON Schemas, by jsonschema-rs.

Its regular expressions take linear time, so that a pattern cannot stop a service; nothing is fetched.
"""

from __future__ import annotations

import itertools
from typing import Any

import jsonschema_rs

_SHOWN = 20
_TEXT = 300


class InvalidSchemaError(Exception):
    """A schema is not a JSON Schema."""


class EventSchema:
    """A compiled schema.

    Raises:
        InvalidSchemaError: it is not a JSON Schema.
    """

    def __init__(self, schema: Any) -> None:
        self.schema = schema
        try:
            self._validator = jsonschema_rs.validator_for(
                schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True
            )
        except (ValueError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise InvalidSchemaError(str(error).splitlines()[0][:_TEXT]) from error

    def problems(self, data: Any) -> list[tuple[str, str]]:
        """Return what in the data of an event does not fit: paths such as `data.rows`, and why; at most 20."""
        found = itertools.islice(self._validator.iter_errors(data), _SHOWN)
        return [(_path(error.instance_path), error.message[:_TEXT]) for error in found]


def _path(words: list[str | int]) -> str:
    return "data" + "".join(f"[{word}]" if isinstance(word, int) else f".{word[:100]}" for word in words)
