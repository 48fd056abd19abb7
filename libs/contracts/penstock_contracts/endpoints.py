"""Endpoints over HTTP."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from penstock_core.deployments.definition import Mode


class CallPending(BaseModel):
    """A request to an endpoint whose run has not finished."""

    id: str
    status_url: str = Field(description="path that returns the same answer when the run has finished")
    run_id: str | None = Field(default=None, description="null until the run is requested")


class EndpointSchema(BaseModel):
    """JSON Schemas of what an endpoint takes and returns, and a body that it would take."""

    input: dict[str, Any]
    output: dict[str, Any]
    example: dict[str, Any]
    mode: Mode = Field(default=Mode.ELASTIC, description="how requests run: as events, or by warm worker processes")
    files: list[str] = Field(default_factory=list[str], description="the inputs that are files: parts of a form")
