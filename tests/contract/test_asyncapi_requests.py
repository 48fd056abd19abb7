"""The requests in the AsyncAPI document are those that services answer, with the models of their handlers."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import pytest

from penstock_artifacts import subscribers as artifacts
from penstock_artifacts.retention.janitor import Janitor
from penstock_artifacts.service import ArtifactsService
from penstock_builder import subscribers as builder
from penstock_builder.service import BuilderService
from penstock_gateway.describe import asyncapi
from penstock_scheduler import subscribers as scheduler
from penstock_scheduler.membership import ReplicaPresence

SERVICES: list[tuple[str, Any, list[type]]] = [
    ("artifacts", artifacts, [ArtifactsService, Janitor]),
    ("builder", builder, [BuilderService]),
    ("scheduler", scheduler, [ReplicaPresence]),
]


@pytest.mark.parametrize(("name", "module", "parts"), SERVICES, ids=[name for name, _, _ in SERVICES])
def test_the_document_has_the_requests_that_a_service_answers(
    monkeypatch: pytest.MonkeyPatch, name: str, module: Any, parts: list[type]
) -> None:
    handlers: dict[str, Callable[..., Any]] = {}
    monkeypatch.setattr(module, "answer", lambda _, subject, handle, error_reply: handlers.update({subject: handle}))
    monkeypatch.setattr(module, "listen", lambda *_: None, raising=False)
    module.register(None, *(object.__new__(part) for part in parts))
    described = {request.subject: request for request in asyncapi.REQUESTS if request.server == name}
    assert described.keys() == handlers.keys()
    for subject, handle in handlers.items():
        hints = typing.get_type_hints(handle, localns=vars(module))
        replies = typing.get_args(hints["return"]) or (hints["return"],)
        assert described[subject].reply in replies
        (request,) = (hint for parameter, hint in hints.items() if parameter != "return")
        assert request is described[subject].request or (
            described[subject].request is None and not request.model_fields
        )
