"""The base of the JSON bodies of requests."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RequestBody(BaseModel):
    """A JSON body, or an object in one. Unknown fields are refused: a misspelt one would be ignored silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)
