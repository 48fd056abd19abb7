"""Fork servers of a pod: one is kept for the attempts that follow, if they have the same source and variables."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from penstock_core import fork_server_protocol as protocol
from penstock_core import step_environment

_LOG_SHOWN = 8 * 1024
_EXIT_WAIT = 10.0

Packet = tuple[list[str], bytes]
_Key = tuple[object, ...]


class ForkServer:
    """A running fork server, which runs one attempt at a time.

    Args:
        source: folder of the unpacked source bundle.
        folder: new folder for its log and the files of its attempts.
        env: environment variables of the steps.
        isolated: whether attempts import their module themselves.
    """

    def __init__(self, source: Path, folder: Path, env: Mapping[str, str], *, isolated: bool) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.isolated = isolated
        self.imported: set[str] = set()
        self.packets: asyncio.Queue[Packet | None] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self._log = folder / "server.log"
        self._log_shown = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-m", "penstock.runner.forkserver"]
        with theirs, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid()), str(source), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=source,
                env=step_environment.variables(env, os.environ),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket: socket.socket | None = ours
        asyncio.get_running_loop().add_reader(ours, self._readable, ours)

    @property
    def alive(self) -> bool:
        """Whether it can take an attempt."""
        return self._socket is not None and self._process.poll() is None

    def next_number(self) -> int:
        """Return the number of the next attempt."""
        return next(self._numbers)

    def send(self, message: bytes) -> None:
        """Send a message; that it has ended is seen in `packets`."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.send(message)

    def new_log(self) -> str:
        """Return the end of what the server itself printed since the last call, such as during an import."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_shown, size - _LOG_SHOWN))
                self._log_shown = size
                return file.read(_LOG_SHOWN).decode(errors="replace")
        except OSError:
            return ""

    async def exit_code(self) -> int:
        """Return the exit code after it has ended."""
        try:
            return await asyncio.to_thread(self._process.wait, _EXIT_WAIT)
        except subprocess.TimeoutExpired:
            return 0

    def close(self) -> None:
        """Close the socket: the server then kills its attempts and exits. Idempotent."""
        link, self._socket = self._socket, None
        if link is not None:
            asyncio.get_running_loop().remove_reader(link)
            link.close()

    def _readable(self, link: socket.socket) -> None:
        try:
            message = link.recv(protocol.PACKET)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            asyncio.get_running_loop().remove_reader(link)
        self.packets.put_nowait(protocol.decode(message) if message else None)


class ForkServers:
    """Keeps the fork server that was used last."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._numbers = itertools.count(1)
        self._key: _Key = ()
        self._server: ForkServer | None = None

    def get(self, source: Path, env: Mapping[str, str], *, isolated: bool = False) -> ForkServer:
        """Return a fork server for a source and environment variables; starts one if there is none."""
        key = (source, *sorted(env.items()))
        server = self._server
        if server is None or not server.alive or key != self._key or (isolated and not server.isolated):
            self.close()
            server = ForkServer(source, self._work / str(next(self._numbers)), env, isolated=isolated)
            self._server, self._key = server, key
        return server

    def close(self) -> None:
        """End the fork server, and with it all processes of its attempt."""
        if self._server is not None:
            self._server.close()
            self._server = None
