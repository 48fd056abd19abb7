"""`penstock login` and `logout` with a real OpenID Connect provider: the device flow, as a user goes through it."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.client import logins
from penstock_testkit.environment import user_environment
from penstock_testkit.servers.child import BinaryMissingError
from penstock_testkit.servers.oidc import CLIENT, OidcProvider

PENSTOCK = str(Path(sys.executable).with_name("penstock"))


class Workspace:
    """A platform whose users come from a provider, and the folder of one user."""

    def __init__(self, folder: Path, provider: OidcProvider) -> None:
        self.folder = folder
        self.provider = provider
        self.config = folder / "config"
        self.environment = user_environment() | {"XDG_CACHE_HOME": str(folder / "cache")}
        self.environment["XDG_CONFIG_HOME"] = str(self.config)
        settings = {
            "PENSTOCK_OIDC_ISSUER": provider.issuer,
            "PENSTOCK_OIDC_CLIENT_ID": CLIENT,
            "PENSTOCK_OIDC_ROLES": json.dumps({"ml": "operator"}),
            "PENSTOCK_FSYNC": "false",
        }
        self.up = subprocess.Popen(
            [PENSTOCK, "up", "--json"],
            cwd=folder,
            env=self.environment | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.up.stdout is not None
        self.url = json.loads("".join(iter(self.up.stdout.readline, "}\n")) + "}")["url"]
        self.environment["PENSTOCK_URL"] = self.url

    def stop(self) -> None:
        self.up.send_signal(signal.SIGINT)
        self.up.communicate(timeout=60)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PENSTOCK, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == code, out + errors
        return out if code == 0 else errors

    def login(self, user: str) -> str:
        process = self.start("login")
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"open (\S+) and confirm the code ([A-Z-]+)", line)
        assert found is not None, line
        assert found[2] in found[1]
        assert "Sign-in Success" in self.provider.confirm(found[1], user)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0, out + errors
        return out + errors


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    provider = OidcProvider(tmp_path_factory.mktemp("oidc"), {"ada": ["ml"], "eve": []})
    try:
        provider.start()
    except BinaryMissingError as missing:
        pytest.skip(str(missing))
    made = Workspace(tmp_path_factory.mktemp("login"), provider)
    yield made
    made.stop()
    provider.stop()


def test_login_stores_a_token_that_logout_revokes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workspace.login("ada").startswith(f"logged in to {workspace.url} as user:ada\n")
    assert workspace.call("whoami") == "user:ada\noperator of all projects\n"
    stored = workspace.config / "penstock" / "logins.json"
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700
    refused = workspace.call("limits", "set", "gpu", "2", code=3)
    assert "permission limits.write is missing: user:ada has the role operator" in refused

    # A token that is about to expire is renewed, for several commands at the same time as for one.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(workspace.config))
    login = logins.load(workspace.url)
    assert login is not None and login.refresh_token
    logins.save(_expiring(login))
    commands = [workspace.start("whoami") for _ in range(3)]
    for command in commands:
        out, errors = command.communicate(timeout=60)
        assert out.startswith("user:ada\n"), errors
    renewed = logins.load(workspace.url)
    assert renewed is not None and renewed.expires_at > time.time() + 600

    assert workspace.call("logout") == f"logged out of {workspace.url}\n"
    assert workspace.url not in json.loads(stored.read_text())
    workspace.environment["PENSTOCK_TOKEN"] = renewed.token
    try:
        assert "it was revoked, or its user is blocked" in workspace.call("whoami", code=3)
    finally:
        del workspace.environment["PENSTOCK_TOKEN"]
    assert "The token is missing" in workspace.call("whoami", code=3)
    assert "not logged in" in workspace.call("logout", code=2)


def _expiring(login: logins.Login) -> logins.Login:
    return logins.Login(
        **{name: getattr(login, name) for name in login.__dataclass_fields__} | {"expires_at": time.time()}
    )


def test_login_warns_a_user_without_a_role(workspace: Workspace) -> None:
    assert "you have no role" in workspace.login("eve")
    assert "user:eve has no role in project" in workspace.call("runs", "list", code=3)
    workspace.call("logout")


def test_login_names_what_is_missing(workspace: Workspace, tmp_path: Path) -> None:
    environment = {name: text for name, text in workspace.environment.items() if name != "PENSTOCK_URL"}
    done = subprocess.run(
        [PENSTOCK, "login"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "give its URL, or set PENSTOCK_URL" in done.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == []
