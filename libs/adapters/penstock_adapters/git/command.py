"""Calls of the program `git`, with nothing of the user's, the machine's or a repository's own configuration.

A repository is untrusted. So hooks, file system monitors and filters are off, only named protocols are used, nothing is
asked, and the environment has none of the variables that change what `git` does. Credentials reach `git` through its
environment, never through arguments, which other users of the machine can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar
from urllib.parse import urlsplit

from penstock_adapters.commands import kill
from penstock_core.errors import PenstockError, UnavailableError

_SHOWN = 20
"""Lines at the end of the output that an error contains."""

_OUTPUT = 64 * 1024 * 1024
"""Bytes of output that are read."""

_SIZE_INTERVAL = 0.5
"""Seconds between two looks at the size of a folder."""

_PASSED = ("PATH", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "LD_LIBRARY_PATH")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy")
_CREDENTIALS = re.compile(r"://[^/\s@]+@")
_HELPER = """!f() { test "$1" = get && printf 'username=%s\\npassword=%s\\n' "$PENSTOCK_USER" "$PENSTOCK_WORD"; }; f"""

_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.attributesFile": "/dev/null",
    "protocol.allow": "never",
    "transfer.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # Servers that prepare a large pack send a few bytes every five seconds.
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "advice.detachedHead": "false",
    "safe.directory": "*",
    "credential.helper": "",
}

_AWAY = (
    "Could not resolve host",
    "Failed to connect",
    "Connection refused",
    "Connection timed out",
    "Connection reset",
    "Operation timed out",
    "Operation too slow",
    "The requested URL returned error: 5",
    "unexpected disconnect",
    "early EOF",
    "RPC failed",
)
_DENIED = (
    "could not read Username",
    "Authentication failed",
    "Permission denied",
    "The requested URL returned error: 401",
    "The requested URL returned error: 403",
    "terminal prompts disabled",
    "' not found",
    "does not appear to be a git repository",
)

Log = Callable[[str], None]
"""Receives a line of output."""


class GitError(PenstockError):
    """`git` failed because of the repository, the ref or the credentials; says what to do."""

    user_fault: ClassVar[bool] = True


class LongOutputError(GitError):
    """`git` printed more than is read."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What authenticates to one host: `user` and `password` over HTTP, or a private key over ssh."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)

    @classmethod
    def of(cls, secret: str) -> Credentials:
        """Read the value of a secret: a private key, `USER:TOKEN`, or a token alone."""
        if secret.lstrip().startswith("-----BEGIN"):
            return cls(private_key=secret.strip() + "\n")
        user, colon, password = secret.strip().partition(":")
        # Every known server ignores the user of a token, or accepts this one.
        return cls(user, password) if colon else cls("oauth2", user)


@dataclass(frozen=True, slots=True)
class GitLimits:
    """Bounds of one call: seconds, bytes on disk, and the protocols that it may use.

    Attributes:
        timeout: in seconds.
        size: bytes of what is fetched.
        protocols: such as `("https", "ssh")`.
        known_hosts: file with the keys of ssh servers; empty: `/etc/ssh/ssh_known_hosts`.
    """

    timeout: float
    size: int
    protocols: tuple[str, ...] = ("https", "ssh")
    known_hosts: str = ""


class Git:
    """Runs `git` with the same limits, for one repository.

    Attributes:
        url: of the repository.
        access: SHA-256 of the URL and the credentials: what was fetched with it is for those who have them.
        limits: of each call.
    """

    def __init__(self, url: str, access: str, limits: GitLimits, variables: Mapping[str, str], log: Log) -> None:
        self.url = url
        self.access = access
        self.limits = limits
        self._variables = dict(variables)
        self._log = log

    async def run(
        self,
        arguments: Sequence[str],
        *,
        settings: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        watched: Path | None = None,
        quiet: bool = False,
    ) -> str:
        """Run `git` and return its standard output.

        Args:
            arguments: of the program.
            settings: further settings, as with `-c`.
            variables: further environment variables.
            watched: a folder; if it grows by more than the size of the limits, `git` is killed.
            quiet: do not log what it prints.

        Raises:
            GitError: it failed.
            UnavailableError: the server does not answer, or `git` cannot be started.
        """
        before = await asyncio.to_thread(folder_size, watched) if watched is not None else 0
        limit = before + self.limits.size
        options = [part for name, value in (settings or {}).items() for part in ("-c", f"{name}={value}")]
        try:
            process = await asyncio.create_subprocess_exec(
                *("git", "--no-pager", "--literal-pathspecs", *options, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**self._variables, **(variables or {})},
                start_new_session=True,
            )
        except OSError as error:
            raise UnavailableError(f"git cannot be started: {error}: install it beside the builder") from error
        watcher = asyncio.create_task(_watch(watched, limit)) if watched is not None else None
        try:
            async with asyncio.timeout(self.limits.timeout):
                reading = asyncio.gather(
                    _read(process.stdout, _OUTPUT), self._lines(_no_log if quiet else self._log, process.stderr)
                )
                await asyncio.wait({reading, *([watcher] if watcher else [])}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    raise self._too_large()
                output, lines = await reading
                code = await process.wait()
        except TimeoutError:
            raise GitError(f"git did not finish in {self.limits.timeout:.0f} s: {self.url}") from None
        finally:
            if watcher is not None:
                watcher.cancel()
            await kill(process)
        if code != 0:
            raise self._error("\n".join(lines).strip() or f"git ended with exit code {code}")
        if watched is not None and await asyncio.to_thread(folder_size, watched) > limit:
            raise self._too_large()
        return output.decode(errors="replace")

    def _too_large(self) -> GitError:
        return GitError(
            f"{self.url} has more than {self.limits.size} bytes at this commit (PENSTOCK_GIT_SIZE): leave large files "
            "out of the repository, or raise the limit"
        )

    async def _lines(self, log: Log, stream: asyncio.StreamReader | None) -> list[str]:
        """Pass the lines of standard error on, without the counters of progress; return the last ones."""
        assert stream is not None  # noqa: S101 - it is a pipe
        lines: list[str] = []
        rest = b""
        while data := await stream.read(64 * 1024):
            *whole, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            rest = rest[-2000:]
            for one in whole:
                if line := masked(one.decode(errors="replace").strip()):
                    log(line)
                    lines = [*lines, line][-_SHOWN:]
        return [*lines, masked(rest.decode(errors="replace"))] if rest else lines

    def _error(self, text: str) -> PenstockError:
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return UnavailableError(f"the machine has run out of something: {text}")
        if "Host key verification failed" in text:
            return GitError(
                f"the ssh server of {self.url} has no known key: add its key to the file in PENSTOCK_GIT_KNOWN_HOSTS\n"
                f"{text}"
            )
        if "not allowed" in text and "transport" in text:
            return GitError(f"{self.url}: builders do not use this protocol (PENSTOCK_GIT_PROTOCOLS)\n{text}")
        if any(words in text for words in _DENIED):
            return GitError(
                f"{self.url} cannot be read: it does not exist, or needs other credentials. Store a token or a private "
                f"key as a secret, and name it with #secret=NAME\n{text}"
            )
        if any(words in text for words in _AWAY):
            return UnavailableError(f"the Git server does not answer: {text}")
        return GitError(f"{self.url}: {text}")


@contextlib.asynccontextmanager
async def session(url: str, limits: GitLimits, credentials: Credentials | None, log: Log) -> AsyncGenerator[Git]:
    """Prepare calls of `git` for one repository, with a home folder that is removed afterwards.

    Raises:
        GitError: the protocol of the URL is not allowed.
    """
    scheme = urlsplit(url).scheme
    if scheme not in limits.protocols:
        raise GitError(f"{url}: builders use {', '.join(limits.protocols)} only, not {scheme} (PENSTOCK_GIT_PROTOCOLS)")
    with TemporaryDirectory(prefix="penstock-git-") as home:
        settings = [(name, value) for name, value in _SETTINGS.items()]
        settings += [(f"protocol.{one}.allow", "always") for one in limits.protocols]
        variables = {name: os.environ[name] for name in (*_PASSED, *_PROXIES) if name in os.environ}
        if credentials is not None and credentials.password:
            parts = urlsplit(url)
            # Of this host only: neither submodules elsewhere nor a redirect to another host gets them.
            settings.append((f"credential.{parts.scheme}://{parts.netloc}.helper", _HELPER))
            variables |= {"PENSTOCK_USER": credentials.user, "PENSTOCK_WORD": credentials.password}
        variables |= {
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "/bin/false",
            "GIT_ALLOW_PROTOCOL": ":".join(limits.protocols),
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_SSH_COMMAND": _ssh(Path(home), limits, credentials),
            "GIT_CONFIG_COUNT": str(len(settings)),
        }
        for number, (name, value) in enumerate(settings):
            variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        yield Git(url, _access(url, credentials), limits, variables, log)


def _access(url: str, credentials: Credentials | None) -> str:
    known = credentials or Credentials()
    parts = [url, known.user, known.password, known.private_key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _ssh(home: Path, limits: GitLimits, credentials: Credentials | None) -> str:
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": limits.known_hosts or "/etc/ssh/ssh_known_hosts",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "ForwardAgent": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "ConnectTimeout": "10",
        "ServerAliveInterval": "10",
    }
    # Not none of this option: ssh would try the keys of the user of this process, whose home is not $HOME to it.
    options["IdentityFile"] = "none"
    if credentials is not None and credentials.private_key:
        key = home / "key"
        key.touch(mode=0o600)
        key.write_text(credentials.private_key, encoding="utf-8")
        options["IdentityFile"] = str(key)
    parts = [f"-o {name}='{value}'" for name, value in options.items()]
    return " ".join(["ssh", "-F none", *parts])


def _no_log(line: str) -> None:
    return


def masked(line: str) -> str:
    """Return a line without users and passwords in URLs."""
    return _CREDENTIALS.sub("://***@", line)[:2000]


async def _read(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    assert stream is not None  # noqa: S101 - it is a pipe
    output = bytearray()
    while data := await stream.read(64 * 1024):
        output += data
        if len(output) > limit:
            raise LongOutputError(f"git printed more than {limit} bytes")
    return bytes(output)


async def _watch(folder: Path | None, limit: int) -> None:
    """Return when a folder is larger than the limit."""
    assert folder is not None  # noqa: S101 - only called with one
    while await asyncio.to_thread(folder_size, folder) <= limit:  # noqa: ASYNC110 - nothing reports the size
        await asyncio.sleep(_SIZE_INTERVAL)


def folder_size(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size  # noqa: PTH118
    return total
