"""Connections of services to real NATS servers, with all kinds of credentials and with TLS, also after a restart."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import subprocess
import time
from pathlib import Path

import nkeys
import pytest
from pydantic import SecretStr

from penstock_servicekit.nats_connection import (
    AccessRefusedError,
    ConnectionFailedError,
    ConnectionSettingsError,
    connect,
    servers,
)
from penstock_servicekit.settings import ServiceSettings
from penstock_testkit.servers.nats import NatsServer


async def check(server: NatsServer, settings: ServiceSettings) -> None:
    """Connect, and be connected again after the server was killed and restarted."""
    await asyncio.to_thread(server.start)
    try:
        assert settings.nats_url is not None
        where = servers(settings.nats_url.get_secret_value(), settings)
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        broker, bus = await connect(where, "test", failed)
        back = asyncio.Event()
        bus.on_reconnect(back.set)
        await round_trip(bus.client)
        await asyncio.to_thread(server.restart)
        async with asyncio.timeout(30):
            await back.wait()
        await round_trip(bus.client)
        failed.cancel()
        await broker.stop()
    finally:
        await asyncio.to_thread(server.stop)


async def round_trip(client: object) -> None:
    from nats.aio.client import Client

    assert isinstance(client, Client)
    subscription = await client.subscribe("test.here")
    await client.publish("test.here", b"x")
    assert (await subscription.next_msg(timeout=10)).data == b"x"
    await subscription.unsubscribe()


@pytest.mark.parametrize("credentials", ["t%40ken%2F", "ada:p%40ss%3Aword%2F"])
async def test_credentials_of_a_url_may_have_any_character(tmp_path: Path, credentials: str) -> None:
    plain = 'token: "t@ken/"' if ":" not in credentials else 'user: ada, password: "p@ss:word/"'
    server = NatsServer(tmp_path, credentials=credentials, options=f"authorization {{ {plain} }}")
    await check(server, ServiceSettings(nats_url=SecretStr(server.url)))


async def test_an_nkey(tmp_path: Path) -> None:
    seed, public = user_key()
    (tmp_path / "user.nk").write_text(seed + "\n")
    server = NatsServer(tmp_path, credentials="", options=f"authorization {{ users: [ {{ nkey: {public} }} ] }}")
    await check(server, ServiceSettings(nats_url=SecretStr(server.url), nats_nkey=tmp_path / "user.nk"))
    other, _ = user_key()
    (tmp_path / "user.nk").write_text(other)
    with pytest.raises(AccessRefusedError, match="refuses the credentials in PENSTOCK_NATS_NKEY"):
        await check(server, ServiceSettings(nats_url=SecretStr(server.url), nats_nkey=tmp_path / "user.nk"))


async def test_a_credentials_file(tmp_path: Path) -> None:
    operator = new_key(nkeys.PREFIX_BYTE_OPERATOR)
    account, system = new_key(nkeys.PREFIX_BYTE_ACCOUNT), new_key(nkeys.PREFIX_BYTE_ACCOUNT)
    user = new_key(nkeys.PREFIX_BYTE_USER)
    names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
    limits = {**dict.fromkeys(names, -1), "wildcards": True}
    operator_jwt = jwt(operator, operator[1], {"type": "operator"})
    account_jwt = jwt(operator, account[1], {"type": "account", "limits": limits})
    system_jwt = jwt(operator, system[1], {"type": "account", "limits": limits})
    user_jwt = jwt(account, user[1], {"type": "user", "subs": -1, "data": -1, "payload": -1})
    creds = tmp_path / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user[0]}\n------END USER NKEY SEED------\n"
    )
    options = (
        f"operator: {operator_jwt}\nsystem_account: {system[1]}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {account[1]}: {account_jwt}, {system[1]}: {system_jwt} }}"
    )
    server = NatsServer(tmp_path, credentials="", options=options)
    await check(server, ServiceSettings(nats_url=SecretStr(server.url), nats_creds=creds))
    with pytest.raises(ConnectionSettingsError, match=r"PENSTOCK_NATS_CREDS: .* cannot be read: No such file"):
        servers(server.url, ServiceSettings(nats_creds=tmp_path / "missing"))


async def test_tls_with_a_client_certificate(tmp_path: Path) -> None:
    certificates(tmp_path)
    tls = (
        f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key", '
        f'ca_file: "{tmp_path}/ca.pem", verify: true }}'
    )
    server = NatsServer(tmp_path / "nats", options=tls)
    url = SecretStr(server.url.replace("nats://", "tls://"))
    ours = {"nats_ca": tmp_path / "ca.pem", "nats_cert": tmp_path / "client.pem", "nats_key": tmp_path / "client.key"}
    await check(server, ServiceSettings.model_validate({"nats_url": url, **ours}))
    for missing, why in (("nats_ca", "certificate verify failed"), ("nats_cert", "")):
        settings = {"nats_url": url, **ours, missing: None}
        if missing == "nats_cert":
            settings["nats_key"] = None
        with pytest.raises(ConnectionFailedError, match=f"cannot be reached: .*{why}"):
            await check(server, ServiceSettings.model_validate(settings))


@pytest.mark.parametrize(
    ("urls", "settings", "why"),
    [
        ("", {}, "has no URL"),
        ("http://host:4222", {}, "'http://host:4222' in PENSTOCK_NATS_URL is not the URL of a NATS server"),
        ("nats://secret@host:port", {}, "'nats://host:port' in PENSTOCK_NATS_URL is not the URL"),
        ("nats://a@one,nats://b@two", {}, "have different credentials"),
        (
            "nats://a@one",
            {"nats_nkey": Path("x")},
            "PENSTOCK_NATS_NKEY and the credentials in PENSTOCK_NATS_URL",
        ),
        (
            "one",
            {"nats_creds": Path("x"), "nats_nkey": Path("x")},
            "PENSTOCK_NATS_CREDS and PENSTOCK_NATS_NKEY",
        ),
        ("one", {"nats_cert": Path("x")}, "PENSTOCK_NATS_CERT and PENSTOCK_NATS_KEY belong together"),
        ("one", {"nats_ca": Path("missing")}, "PENSTOCK_NATS_CA: missing cannot be used: .*No such file"),
    ],
)
def test_contradictions_are_refused(urls: str, settings: dict[str, Path], why: str) -> None:
    with pytest.raises(ConnectionSettingsError, match=why):
        servers(urls, ServiceSettings.model_validate(settings))


def test_urls_are_a_list_without_credentials() -> None:
    found = servers(" nats://secret@one:4223 , two,tls://[::1]:5 ", ServiceSettings())
    assert found.urls == ["tls://one:4223", "tls://two:4222", "tls://[::1]:5"]
    assert "secret" not in str(found)


# ------------------------------------------------------------------------------------------------- keys, tokens


def new_key(prefix: int) -> tuple[str, str]:
    """A new seed and its public key."""
    seed = nkeys.encode_seed(secrets.token_bytes(32), prefix)
    return seed.decode(), bytes(nkeys.from_seed(bytearray(seed)).public_key).decode()


def user_key() -> tuple[str, str]:
    return new_key(nkeys.PREFIX_BYTE_USER)


def jwt(issuer: tuple[str, str], subject: str, claims: dict[str, object]) -> str:
    body: dict[str, object] = {
        "iss": issuer[1],
        "sub": subject,
        "name": "test",
        "iat": int(time.time()),
        "nats": {"version": 2, **claims},
    }
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, body]
    text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    return f"{text}.{encoded(nkeys.from_seed(bytearray(issuer[0].encode())).sign(text.encode()))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def certificates(folder: Path) -> None:
    """An authority, and certificates of a server on 127.0.0.1 and of a client."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-days", "2", "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        extension = folder / f"{name}.ext"
        extension.write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("req", *new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", extension.name, "-out", f"{name}.pem"),
        )
