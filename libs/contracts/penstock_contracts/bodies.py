"""The base of the JSON bodies of requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

INTEGER_LIMIT = 2**53
"""Integers below it are the same in every implementation of JSON."""

Number = Annotated[float, Field(strict=True)]
"""A number: neither text nor true."""


class RequestBody(BaseModel):
    """A JSON body, or an object in one. Unknown fields are refused: a misspelt one would be ignored silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)
