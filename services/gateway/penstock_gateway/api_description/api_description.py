"""The description of the running application, which is made at the first request for it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from fastapi import FastAPI

from penstock_gateway.api_description import openapi, page


class ApiDescription:
    """The OpenAPI document of an application and its page. Making them takes most of a second, once."""

    def __init__(self) -> None:
        self._made: dict[str, bytes] = {}
        self._one = asyncio.Lock()

    async def document(self, app: FastAPI) -> bytes:
        """Return the document as JSON; its server is the one that is asked."""
        return (await self._described(app))["json"]

    async def page(self, app: FastAPI) -> bytes:
        """Return the page as HTML."""
        return (await self._described(app))["html"]

    async def _described(self, app: FastAPI) -> dict[str, bytes]:
        async with self._one:
            if not self._made:
                self._made = await asyncio.to_thread(_describe, app)
        return self._made


def _describe(app: FastAPI) -> dict[str, bytes]:
    document: dict[str, Any] = openapi.document(app) | {"servers": [{"url": "/"}]}
    return {"json": orjson.dumps(document), "html": page.render(document).encode()}
