"""Previews over HTTP: the gateway forwards requests and reads no bytes itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
import pytest_asyncio
from gateway_platform import Http, Platform

from penstock_contracts import subjects
from penstock_contracts.previews import MakePreview, Preview, PreviewReply

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE, MISSING, AWAY, BROKEN = "1" * 64, "2" * 64, "3" * 64, "4" * 64
REPLIES = {
    HERE: PreviewReply(preview=Preview(sha256=HERE, size=4, kind="text", text="<b>", language="html")),
    MISSING: PreviewReply(),
    AWAY: PreviewReply(error="the store is away", unavailable=True),
    BROKEN: PreviewReply(error="the store is set up wrongly"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(platform: Platform) -> AsyncGenerator[list[MakePreview]]:
    """The requests to the fake artifacts service."""
    commands: list[MakePreview] = []

    async def answer(message: Any) -> None:
        command = MakePreview.model_validate_json(message.data)
        commands.append(command)
        await message.respond(REPLIES[command.sha256].model_dump_json().encode())

    await platform.bus.subscribe(subjects.ARTIFACTS_PREVIEW, answer)
    yield commands


async def test_previews_are_only_json(http: Http, asked: list[MakePreview]) -> None:
    query = "format=file&media_type=text%2Fhtml&filename=a.html&unsafe=true"
    found = await http("GET", f"/v1/artifacts/{HERE}/preview?{query}")
    assert (found.status, found.headers["content-type"]) == (200, "application/json")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert (found.json()["kind"], found.json()["text"]) == ("text", "<b>")
    assert asked[-1] == MakePreview(sha256=HERE, format="file", media_type="text/html", filename="a.html", unsafe=True)
    assert (await http("GET", f"/v1/artifacts/{HERE}/preview")).status == 200
    assert asked[-1] == MakePreview(sha256=HERE)


async def test_failures_map_to_http_statuses(http: Http, asked: list[MakePreview]) -> None:
    assert (await http("GET", f"/v1/artifacts/{MISSING}/preview")).status == 404
    assert (await http("GET", f"/v1/artifacts/{AWAY}/preview")).status == 503
    assert (await http("GET", f"/v1/artifacts/{BROKEN}/preview")).status == 502
    assert (await http("GET", "/v1/artifacts/nothing/preview")).status == 404
    before = len(asked)
    long = await http("GET", f"/v1/artifacts/{HERE}/preview?format={'x' * 101}")
    assert (long.status, long.fields) == (422, {"query.format"})
    assert (await http("GET", f"/v1/artifacts/{HERE}/preview", token=None)).status == 401
    assert len(asked) == before
