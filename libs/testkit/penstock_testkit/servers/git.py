"""Git servers on loopback: `git http-backend` with basic authentication, `git daemon` and sshd; and repositories."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from penstock_testkit.servers.child import BinaryMissingError, Child
from penstock_testkit.servers.ports import free_ports

_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}


class Repository:
    """A repository in a folder, with a work tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, given: str = "") -> str:
        """Run `git` in the work tree with a standard input, and return its output."""
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *arguments],
            cwd=self.folder,
            env={**_ENVIRONMENT, "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            input=given,
            timeout=60,
            check=True,
        )
        return done.stdout.strip()

    def commit(self, files: Mapping[str, str], message: str = "change") -> str:
        """Write files, commit everything, and return the commit."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


class HttpGitServer:
    """`git http-backend` behind an HTTP server, for the repositories in a folder.

    Attributes:
        requests: method and path of each request, in order.
        passwords: users with their passwords; if there are any, they are required.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.passwords: dict[str, str] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> HttpGitServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """URL of the folder of repositories."""
        return f"http://127.0.0.1:{self._server.server_port}"


def _handler(server: HttpGitServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            server.requests.append(f"{self.command} {self.path}")
            if server.passwords and not self._authorized():
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="git"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            path, _, query = self.path.partition("?")
            done = subprocess.run(
                ["git", "http-backend"],
                input=self._body(),
                env={
                    **_ENVIRONMENT,
                    "GIT_PROJECT_ROOT": str(server.root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": path,
                    "QUERY_STRING": query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "REMOTE_ADDR": "127.0.0.1",
                    "GIT_CONFIG_COUNT": "1",
                    "GIT_CONFIG_KEY_0": "safe.directory",
                    "GIT_CONFIG_VALUE_0": "*",
                },
                capture_output=True,
                timeout=60,
                check=False,
            )
            head, _, content = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
            self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _authorized(self) -> bool:
            kind, _, given = self.headers.get("Authorization", "").partition(" ")
            user, _, password = base64.b64decode(given).decode().partition(":")
            return kind == "Basic" and server.passwords.get(user) == password

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler


@contextmanager
def git_daemon(root: Path, folder: Path) -> Generator[str]:
    """Run `git daemon` for the repositories in `root`; yield the URL of its folder."""
    (port,) = free_ports(1)
    arguments = ["--reuseaddr", "--listen=127.0.0.1", f"--port={port}", "--export-all", f"--base-path={root}"]
    command = ["git", "-c", "safe.directory=*", "daemon", *arguments, str(root)]
    child = Child("git daemon", command, folder / "daemon.log", folder, _ENVIRONMENT)
    try:
        child.wait_until(lambda: _listens(port), 30)
        yield f"git://127.0.0.1:{port}"
    finally:
        child.stop()


class SshGitServer:
    """An sshd that serves the repositories in a folder to one key.

    Attributes:
        url: of the folder of repositories.
        key: the private key of the client.
        known_hosts: file with the key of the server.
    """

    def __init__(self, url: str, key: str, known_hosts: Path) -> None:
        self.url = url
        self.key = key
        self.known_hosts = known_hosts


@contextmanager
def ssh_server(root: Path, folder: Path) -> Generator[SshGitServer]:
    """Run sshd for the repositories in `root`, as the user of the tests.

    Raises:
        BinaryMissingError: sshd is not installed, or cannot run as this user.
    """
    sshd = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        raise BinaryMissingError("no executable 'sshd' or 'ssh': install openssh-server")
    folder.chmod(0o700)
    for name in ("host", "client"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(make, check=True, timeout=30)
    (port,) = free_ports(1)
    public = (folder / "client.pub").read_text().strip()
    (folder / "authorized").write_text(f'restrict,command="{folder / "serve"}" {public}\n')
    (folder / "authorized").chmod(0o600)
    serve = '#!/bin/sh\nexec git -c "safe.directory=*" shell -c "$SSH_ORIGINAL_COMMAND"\n'
    (folder / "serve").write_text(serve)
    (folder / "serve").chmod(0o700)
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": folder / "sshd.pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "AcceptEnv": "GIT_PROTOCOL",
    }
    (folder / "sshd.conf").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    command = [sshd, "-D", "-e", "-f", str(folder / "sshd.conf")]
    child = Child("sshd", command, folder / "sshd.log", folder, _ENVIRONMENT)
    try:
        child.wait_until(lambda: _listens(port), 30)
        host_key = " ".join((folder / "host.pub").read_text().split()[:2])
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        key = (folder / "client").read_text()
        yield SshGitServer(f"ssh://{user}@127.0.0.1:{port}{root}", key, folder / "known_hosts")
    finally:
        child.stop()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    except OSError:
        time.sleep(0.02)
        return False
