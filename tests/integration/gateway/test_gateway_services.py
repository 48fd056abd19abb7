"""The gateway with the real builder and artifacts services, used by the real client: on a folder and on S3."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import io
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from gateway_platform import TOKEN, chain
from pydantic import SecretStr

import penstock_artifacts.app
import penstock_builder.app
import penstock_gateway.app
from penstock.client.http.transport import Transport
from penstock.client.platform import Address
from penstock.errors import NotFoundError, RefusedError
from penstock_artifacts.settings import ArtifactsSettings
from penstock_builder.settings import BuilderSettings
from penstock_gateway.settings import GatewaySettings
from penstock_servicekit import app as servicekit
from penstock_servicekit import logs
from penstock_servicekit.settings import ServiceSettings
from penstock_testkit.servers.nats import NatsServer
from penstock_testkit.servers.s3 import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@contextlib.asynccontextmanager
async def services(
    nats: NatsServer, home: Path, artifacts: ArtifactsSettings, **options: bool
) -> AsyncGenerator[Transport]:
    """Gateway, builder and artifacts service; yields the client's connection."""
    logs.configure("critical", "json")
    token = SecretStr(TOKEN)
    gateway = GatewaySettings(home=home, port=0, token=token, max_blob=50_000_000, stop_timeout=4.0, **options)
    running = await servicekit.compose(
        nats.url,
        ServiceSettings(home=home),
        {
            "artifacts": lambda link: penstock_artifacts.app.build(link, artifacts),
            "builder": lambda link: penstock_builder.app.build(link, BuilderSettings(home=home)),
            "gateway": lambda link: penstock_gateway.app.build(link, gateway),
        },
    )
    address = Address(f"http://127.0.0.1:{running.services['gateway'].port}", TOKEN)  # type: ignore[attr-defined]
    try:
        yield Transport(lambda: address, 20.0, 5.0)
    finally:
        await servicekit.stop(running, 5.0)


def on_s3(server: S3Server, home: Path) -> ArtifactsSettings:
    return ArtifactsSettings(
        home=home,
        artifacts_url=f"s3://{BUCKET}/through/the/gateway",
        s3_endpoint=server.endpoint,
        s3_access_key=SecretStr(ACCESS_KEY),
        s3_secret_key=SecretStr(SECRET_KEY),
    )


async def put_get_register(transport: Transport, folder: Path, name: str) -> None:
    """The client's workflow: upload a bundle, register a version, submit a run, download bytes."""
    data = os.urandom(3_000_000)
    sha256 = hashlib.sha256(data).hexdigest()
    file = folder / "bundle.tar"
    file.write_bytes(data)
    path = f"/v1/artifacts/{sha256}"
    call = asyncio.to_thread
    assert not await call(transport.exists, path)
    with pytest.raises(NotFoundError):
        await call(transport.download, path, io.BytesIO())
    body = {
        "pipeline": chain(name),
        "source": sha256,
        "environment": {"version": "3.11", "digest": "0" * 64},
        "publish": True,
    }
    with pytest.raises(RefusedError, match="not in the artifact store"):
        await call(transport.json, "POST", "/v1/versions", body=body)
    await asyncio.gather(*(call(transport.upload, path, file) for _ in range(3)))
    assert await call(transport.exists, path)
    await call(transport.upload, path, file)
    into = io.BytesIO()
    await call(transport.download, path, into)
    assert into.getvalue() == data
    other = folder / "other"
    other.write_bytes(b"not what the name says")
    with pytest.raises(RefusedError):
        await call(transport.upload, f"/v1/artifacts/{'1' * 64}", other)
    assert not await call(transport.exists, f"/v1/artifacts/{'1' * 64}")
    first = await call(transport.json, "POST", "/v1/versions", body=body)
    again = await call(transport.json, "POST", "/v1/versions", body=body)
    assert (first["version"], first["created"], again["version"], again["created"]) == (1, True, 1, False)
    reference = {"artifact": {"sha256": sha256, "size": len(data)}}
    run = {"pipeline": name, "inputs": {"n": reference}}
    accepted = await call(transport.json, "POST", "/v1/runs", body=run)
    view = await call(transport.json, "GET", f"/v1/runs/{accepted['run_id']}")
    assert view["inputs"]["n"]["artifact"]["sha256"] == sha256
    with pytest.raises(RefusedError, match="not in the store"):
        reference["artifact"]["sha256"] = "1" * 64
        await call(transport.json, "POST", "/v1/runs", body=run)


async def test_on_a_folder(nats_server: NatsServer, tmp_path: Path) -> None:
    async with services(nats_server, tmp_path, ArtifactsSettings(home=tmp_path)) as transport:
        await put_get_register(transport, tmp_path, "on-folder")


async def test_a_store_on_s3(nats_server: NatsServer, s3_server: S3Server, tmp_path: Path) -> None:
    async with services(nats_server, tmp_path, on_s3(s3_server, tmp_path)) as transport:
        await put_get_register(transport, tmp_path, "on-s3")


async def test_bytes_of_s3_pass_through_the_gateway(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    async with services(nats_server, tmp_path, on_s3(s3_server, tmp_path), artifacts_via_gateway=True) as transport:
        await put_get_register(transport, tmp_path, "through-gateway")
        data = os.urandom(1_000_000)
        path = f"/v1/artifacts/{hashlib.sha256(data).hexdigest()}"
        address = transport.locate()

        def send(method: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(address.url.removeprefix("http://"), timeout=20)
            with contextlib.closing(connection):
                connection.request(method, path, body, {"authorization": f"Bearer {TOKEN}", **headers})
                answer = connection.getresponse()
                return answer.status, answer.read()

        assert (await asyncio.to_thread(send, "PUT", {}, data[:-1] + b"x"))[0] == 422
        assert (await asyncio.to_thread(send, "GET", {}))[0] == 404
        assert (await asyncio.to_thread(send, "PUT", {}, data))[0] == 201
        assert (await asyncio.to_thread(send, "PUT", {}, data))[0] == 200
        assert await asyncio.to_thread(send, "GET", {}) == (200, data)
        assert await asyncio.to_thread(send, "GET", {"range": "bytes=999000-999009"}) == (206, data[999000:999010])
        assert (await asyncio.to_thread(send, "GET", {"range": "bytes=1000000-"}))[0] == 416


async def test_a_presigned_url_has_no_token_and_includes_the_digest(
    nats_server: NatsServer, s3_server: S3Server, tmp_path: Path
) -> None:
    async with services(nats_server, tmp_path, on_s3(s3_server, tmp_path)) as transport:
        data = b"the named bytes"
        address = transport.locate()

        def granted() -> tuple[str, str]:
            connection = http.client.HTTPConnection(address.url.removeprefix("http://"), timeout=10)
            with contextlib.closing(connection):
                headers = {"authorization": f"Bearer {TOKEN}"}
                connection.request("PUT", f"/v1/artifacts/{hashlib.sha256(data).hexdigest()}", data, headers)
                answer = connection.getresponse()
                assert answer.status == 307
                return answer.getheader("location", ""), answer.getheader("penstock-send-headers", "")

        location, headers = await asyncio.to_thread(granted)
        assert location.startswith(s3_server.endpoint)
        assert TOKEN not in location
        assert "x-amz-checksum-sha256" in headers
