"""A real OpenID Connect provider for tests: the npm package `oidc-provider` in Node.js, on loopback."""

from __future__ import annotations

import fcntl
import html
import http.cookiejar
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from penstock_testkit.servers.child import BinaryMissingError, Child
from penstock_testkit.servers.ports import free_ports

CLIENT = "penstock"
_PACKAGE = "oidc-provider@9.13.3"


class OidcProvider:
    """One provider, which knows the users in `groups`. `stop`, then `start`, keep the port and forget all logins."""

    def __init__(self, folder: Path, groups: Mapping[str, Sequence[str]]) -> None:
        self._folder = folder
        self._groups = groups
        self._child: Child | None = None
        self._port = free_ports(1)[0]
        self.key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})

    @property
    def issuer(self) -> str:
        """URL of the provider, and the claim `iss` of its tokens."""
        return f"http://127.0.0.1:{self._port}"

    def start(self, timeout: float = 60.0) -> None:
        """Start it and wait until it answers.

        Raises:
            BinaryMissingError: Node.js or the package is not installed and cannot be.
        """
        node, modules = shutil.which("node"), _modules()
        if node is None:
            raise BinaryMissingError("no executable 'node': install Node.js")
        settings = self._folder / "oidc.json"
        settings.write_text(json.dumps({"jwks": {"keys": [self.key.as_dict(private=True)]}, "groups": self._groups}))
        script = Path(__file__).with_name("oidc_provider.mjs")
        self._child = Child(
            "oidc-provider",
            [node, str(script), str(self._port), str(settings)],
            self._folder / "oidc.log",
            self._folder,
            {"NODE_MODULES_OF": str(modules)},
        )
        self._child.wait_until(self._answers, timeout)

    def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            self._child.stop()

    def rotate(self, kid: str) -> None:
        """Restart it with another key in place of the first one."""
        self.stop()
        self.key = RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})
        self.start()

    def token(self, user: str, **changes: Any) -> str:
        """Return an ID token that this provider could have issued, with some claims changed; None removes one."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT,
            "sub": user,
            "groups": self._groups.get(user, []),
            "iat": now,
        }
        claims |= {"exp": now + 3600, **changes}
        return jwt.encode(
            {"alg": "RS256", "kid": self.key.kid}, {k: v for k, v in claims.items() if v is not None}, self.key
        )

    def confirm(self, url: str, user: str) -> str:
        """Do in a browser what a user does who opens the URL of a device login; return the last page."""
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        page, at = _open(opener, url)
        for _ in range(6):
            form = re.search(r"<form[^>]*>.*?</form>", page, re.DOTALL)
            if form is None:
                return page
            action = re.search(r'action="([^"]*)"', form[0])
            fields = dict(re.findall(r'<input[^>]*name="([^"]+)"[^>]*value="([^"]*)"', form[0]))
            fields |= {name: user for name in re.findall(r'<input[^>]*name="(login|password)"', form[0])}
            target = urllib.parse.urljoin(at, html.unescape(action[1])) if action else at
            page, at = _open(opener, target, urllib.parse.urlencode(fields).encode())
        raise RuntimeError(f"the login does not end: {page[:500]}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.issuer}/jwks", timeout=5) as response:  # noqa: S310 - on loopback
                return response.status == 200
        except OSError:
            return False


def _open(opener: urllib.request.OpenerDirector, url: str, data: bytes | None = None) -> tuple[str, str]:
    try:
        with opener.open(url, data, timeout=20) as response:
            return response.read().decode(), response.url
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{url} answers {error.code}: {error.read()[:500]!r}") from error


def _modules() -> Path:
    """Return the folder with the package, after installing it once for all tests of this machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock-tests"
    folder = cache / _PACKAGE
    npm = shutil.which("npm")
    if npm is None:
        raise BinaryMissingError("no executable 'npm': install Node.js")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "oidc-provider.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "package.json").exists():
            made = folder.with_name(f"{_PACKAGE}.{os.getpid()}")
            made.mkdir()
            (made / "package.json").write_text('{"private": true}')
            command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", _PACKAGE]
            done = subprocess.run(command, cwd=made, capture_output=True, text=True, timeout=180, check=False)
            if done.returncode != 0:
                shutil.rmtree(made)
                raise BinaryMissingError(f"npm cannot install {_PACKAGE}: {done.stderr[-300:]}")
            made.rename(folder)
    return folder
