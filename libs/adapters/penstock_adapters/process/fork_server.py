"""A fork server as the executor sees it: a process, one socket to it and its children, and what it has imported."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from penstock_adapters.process import step_user
from penstock_adapters.process.attempt_environment import AttemptEnvironment
from penstock_adapters.process.step_user import StepUser
from penstock_core.fork_server_protocol import PACKET, decode

_LOG_SHOWN = 8 * 1024
_CREDENTIALS = struct.Struct("iII")
_CREDENTIALS_SPACE = socket.CMSG_SPACE(_CREDENTIALS.size)


class ForkServerListener(Protocol):
    """Receives the messages of fork servers, and their ends."""

    def on_message(self, server: ForkServer, sender: int, words: list[str], body: bytes) -> None:
        """Handle a message from process `sender`: the words of its header line, and its body."""
        ...

    def on_exit(self, server: ForkServer, code: int) -> None:
        """Handle the end of the process with `code` (negative: by that signal); all of its messages came before."""
        ...


class ForkServer:
    """A running fork server.

    Args:
        owner: gets its messages and its end.
        where: interpreter and source folder.
        folder: new folder for its log and its children's files.
        env: all environment variables of the process.
        mark: the value in `env` that identifies the processes of this server.
        user: the user that it runs as; by default that of this process.

    Raises:
        OSError: the interpreter could not be started.
        ValueError: a variable has a character that is not allowed.
    """

    def __init__(
        self,
        owner: ForkServerListener,
        where: AttemptEnvironment,
        folder: Path,
        env: Mapping[str, str],
        mark: str,
        user: StepUser | None = None,
    ) -> None:
        self.folder = folder
        self.source = where.source
        self.mark = mark
        self.imported: set[str] = set()
        self.importing: dict[str, asyncio.TimerHandle] = {}
        self.jobs = 0
        self.idle_since = 0.0
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._log_shown = 0
        folder.mkdir()
        if user is not None:
            step_user.own_folder(folder, user)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [where.python, "-P", "-m", "penstock.runner.forkserver"]
        started: subprocess.Popen[bytes] | None = None
        try:
            with theirs, self._log.open("ab") as log:
                started = subprocess.Popen(
                    [*command, str(theirs.fileno()), str(os.getpid()), where.source, str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=where.source,
                    env=env,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                    user=user.uid if user is not None else None,
                    group=user.gid if user is not None else None,
                    extra_groups=user.groups if user is not None else None,
                )
            self._pidfd = os.pidfd_open(started.pid)
        except BaseException:
            ours.close()
            if started is not None:
                started.kill()
                started.wait()
            raise
        self._process = started
        self._socket = ours
        ours.setblocking(False)
        # All children share the other end; the kernel says which of them a message is from.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._loop.add_reader(ours, self._readable)
        self._loop.add_reader(self._pidfd, self._ended)

    @property
    def pid(self) -> int:
        """Process id of the fork server."""
        return self._process.pid

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def send(self, message: bytes, handed_over: socket.socket | None = None) -> None:
        """Send a message of at most `PACKET` bytes; what the socket does not take at once follows in order.

        A socket that is handed over with it is closed here afterwards.
        """
        if self._unsent:
            self._unsent.append((message, handed_over))
            return
        try:
            self._send(message, handed_over)
        except BlockingIOError:
            self._unsent.append((message, handed_over))
            self._loop.add_writer(self._socket, self._writable)
        except OSError:
            return  # it has exited, and `on_exit` follows

    def _send(self, message: bytes, handed_over: socket.socket | None) -> None:
        if handed_over is None:
            self._socket.send(message)
            return
        socket.send_fds(self._socket, [message], [handed_over.fileno()])
        handed_over.close()

    def close(self) -> None:
        """Close the socket: the server then kills its children and exits. Idempotent."""
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._unsent.clear()
        self._socket.close()

    def kill(self) -> None:
        """Kill the server."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)

    def new_log(self) -> str:
        """The end of what the server itself printed since the last call, such as during an import."""
        try:
            with self._log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_shown, size - _LOG_SHOWN))
                self._log_shown = size
                return file.read(_LOG_SHOWN).decode(errors="replace")
        except OSError:
            return ""

    def _writable(self) -> None:
        while self._unsent:
            try:
                self._send(*self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()
                break
            self._unsent.popleft()
        self._loop.remove_writer(self._socket)

    def _readable(self, limit: int = 100) -> None:
        """Receive what is there, at most `limit` messages: a step may flood the socket."""
        while self._socket.fileno() >= 0 and limit > 0:
            limit -= 1
            try:
                message, extra, _, _ = self._socket.recvmsg(PACKET, _CREDENTIALS_SPACE)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it exited with unread messages of ours; those that it sent still follow
            if not message:
                self._loop.remove_reader(self._socket)  # the pidfd reports its end
                return
            sender: int = _CREDENTIALS.unpack(extra[0][2])[0] if extra else 0
            self._owner.on_message(self, sender, *decode(message))

    def _ended(self) -> None:
        for timer in self.importing.values():
            timer.cancel()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        self._readable(limit=10_000)
        self.close()
        self._owner.on_exit(self, code)
