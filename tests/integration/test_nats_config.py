"""Servers with the configuration of `penstock admin nats-config`: who connects, and as whom."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr

from penstock_adapters.nats.auth import generated, keys
from penstock_adapters.nats.auth.admission import Admission
from penstock_adapters.nats.auth.callout import Callout, RefusedCredentialError
from penstock_adapters.nats.bootstrap import bootstrap
from penstock_core.errors import UnavailableError
from penstock_servicekit.nats_connection import AccessRefusedError, ConnectionSettingsError, connect, servers
from penstock_servicekit.settings import ServiceSettings
from penstock_testkit.servers.nats import NatsServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generated.write(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def server(tmp_path: Path, folder: Path) -> Iterator[NatsServer]:
    one = NatsServer(tmp_path / "nats", credentials="", options=f'include "../{folder.name}/{generated.CONFIG}"')
    one.start()
    yield one
    one.stop()


def settings(server: NatsServer, seed: str) -> ServiceSettings:
    return ServiceSettings(nats_url=SecretStr(server.url), nats_seed=SecretStr(seed))


def test_seeds_are_private_and_the_configuration_has_none_of_them(folder: Path) -> None:
    text = (folder / generated.CONFIG).read_text()
    for file in folder.glob("*.nk"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().strip() not in text


def test_keys_stay_and_missing_ones_are_added(folder: Path) -> None:
    before = {file.name: file.read_text() for file in folder.iterdir()}
    (folder / "cron.nk").unlink()
    generated.write(folder)
    after = {file.name: file.read_text() for file in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"cron.nk", generated.CONFIG}
    assert keys.public(after["cron.nk"].strip()) in after[generated.CONFIG]


def test_a_file_that_is_no_seed_is_refused(folder: Path) -> None:
    for text in ("", "}} evil", keys.new_user()):
        (folder / generated.ISSUER).write_text(text)
        with pytest.raises(keys.InvalidSeedError):
            generated.write(folder)


async def test_each_service_connects_with_its_own_seed(server: NatsServer, folder: Path) -> None:
    for name in generated.SERVICES:
        seed = (folder / f"{name}.nk").read_text()
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        where = servers(server.url, settings(server, seed))
        broker, bus = await connect(where, name, failed)
        await bootstrap(bus, pools=["default"])
        failed.cancel()
        await broker.stop()


async def test_a_seed_that_the_servers_do_not_know_is_refused(server: NatsServer) -> None:
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    where = servers(server.url, settings(server, keys.new_user()))
    with pytest.raises(AccessRefusedError, match="refuses the credentials in PENSTOCK_NATS_SEED"):
        await connect(where, "test", failed)


def test_a_seed_and_other_credentials_contradict_each_other(server: NatsServer, folder: Path) -> None:
    both = ServiceSettings(nats_seed=SecretStr(keys.new_user()), nats_nkey=folder / "cron.nk")
    with pytest.raises(ConnectionSettingsError, match="PENSTOCK_NATS_NKEY and PENSTOCK_NATS_SEED are both set"):
        servers(server.url, both)
    nonsense = ServiceSettings(nats_seed=SecretStr("SUperSecret"))
    with pytest.raises(ConnectionSettingsError, match="PENSTOCK_NATS_SEED is not the seed") as raised:
        servers(server.url, nonsense)
    assert "SUperSecret" not in str(raised.value)


async def test_a_gateway_with_another_issuer_says_so(server: NatsServer) -> None:
    async def admit(token: str) -> Admission:
        raise RefusedCredentialError("nobody")

    issuer = keys.new_account()
    login = {"nkeys_seed_str": keys.callout_user(issuer)}
    log = structlog.get_logger()
    callout = Callout([server.url], login, None, issuer, admit, log, lambda why: None)
    with pytest.raises(UnavailableError, match="Compare PENSTOCK_NATS_ISSUER_SEED with the configuration"):
        await callout.start()
    await callout.close()
