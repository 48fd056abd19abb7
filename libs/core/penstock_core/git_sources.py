"""Sources in Git repositories: `git+https://HOST/REPO@REF#subdirectory=DIR:PIPELINE`.

Everything in such a text comes from users and becomes arguments of `git`. So a part that `git` could read as an option,
a command or another protocol is refused here, whichever service reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

from penstock_core.errors import PenstockError
from penstock_core.frozen import frozen

PREFIX = "git+"
LONGEST = 1000
"""Characters of a URL, a ref or a path."""

SCHEMES = ("https", "ssh", "http", "git", "file")
"""Protocols of URLs; builders refuse those that their settings do not allow."""

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?\Z|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?\Z")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\Z")
_BAD_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|\Z)|(^|/)\.|[./]\Z|^/|^@\Z")
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(@[1-9][0-9]{0,8})?\Z")
_FORM = "git+https://HOST/REPOSITORY@REF#subdirectory=FOLDER:PIPELINE"


class InvalidGitSourceError(PenstockError, ValueError):
    """A source in a Git repository is not valid; the message says which part and what to do."""

    user_fault: ClassVar[bool] = True


@frozen(kw_only=True)
class GitSource:
    """A pipeline in a Git repository.

    Attributes:
        url: of the repository, without credentials, such as `https://host/team/repo.git`.
        ref: branch, tag, `refs/…` or full commit; empty: the default branch.
        path: folder or Python file in the repository; empty: its root.
        pipeline: name of the pipeline; needed if the file has several.
        submodules: whether submodules are part of the source.
        lfs: whether files in Git LFS are downloaded; otherwise steps see their pointers.
        secret: name, or `NAME@VERSION`, of the secret with a token, `USER:TOKEN` or a private key; empty: none.

    Raises:
        InvalidGitSourceError: a part is not valid.
    """

    url: str
    ref: str = ""
    path: str = ""
    pipeline: str = ""
    submodules: bool = False
    lfs: bool = False
    secret: str = ""

    def __post_init__(self) -> None:
        if (problem := next(self._problems(), None)) is not None:
            raise InvalidGitSourceError(problem)

    def digest(self, *, published: bool = True) -> str:
        """SHA-256 of everything, and of whether the version is published: that is another build."""
        parts = [1, published, self.url, self.ref, self.path, self.pipeline, self.submodules, self.lfs, self.secret]
        return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()

    def __str__(self) -> str:
        options = {"subdirectory": self.path, "submodules": self.submodules, "lfs": self.lfs, "secret": self.secret}
        shown = ((name, "true" if value is True else str(value)) for name, value in options.items() if value)
        fragment = "&".join(f"{name}={quote(value, safe='/')}" for name, value in shown)
        pipeline = f":{self.pipeline}" if self.pipeline else ""
        ref = f"@{self.ref}" if self.ref else ""
        return f"{PREFIX}{self.url}{ref}" + (f"#{fragment}{pipeline}" if fragment or pipeline else "")

    def _problems(self) -> Iterator[str]:
        if (problem := url_problem(self.url)) is not None:
            yield problem
        unusable = self.ref.startswith("-") or not self.ref.isprintable() or len(self.ref) > LONGEST
        if unusable or (self.ref and _BAD_REF.search(self.ref)):
            yield f"{self.ref[:200]!r} is not the name of a branch or tag, nor a commit"
        if (problem := path_problem(self.path)) is not None:
            yield problem
        if self.pipeline and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", self.pipeline):
            yield f"{self.pipeline[:200]!r} is not the name of a pipeline"
        if self.secret and not _SECRET.match(self.secret):
            yield f"{self.secret[:200]!r} is not the name of a secret"


def parse(text: str) -> GitSource:
    """Read a source such as `git+https://host/team/repo@main#subdirectory=train:training`.

    Raises:
        InvalidGitSourceError: it is not valid.
    """
    if not text.startswith(PREFIX) or "://" not in text:
        raise InvalidGitSourceError(f"{text[:200]!r} is not the source of a pipeline in Git: expected {_FORM}")
    if len(text) > 5 * LONGEST:
        raise InvalidGitSourceError(f"the source has more than {5 * LONGEST} characters")
    address, _, fragment = text.removeprefix(PREFIX).partition("#")
    scheme, _, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    path, at, ref = path.rpartition("@") if "@" in path else (path, "", "")
    ref, colon, pipeline = ref.partition(":")
    options, last = fragment, ""
    if not colon and ":" in fragment:
        options, _, last = fragment.rpartition(":")
    if (at and not ref) or (colon and not pipeline):
        raise InvalidGitSourceError(f"the branch, tag or commit behind '@' is missing: expected {_FORM}")
    return GitSource(
        url=f"{scheme.lower()}://{authority}{slash}{path}", ref=ref, pipeline=pipeline or last, **_options(options)
    )


def _options(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        match name, value:
            case "subdirectory", _:
                found["path"] = value.strip("/") if value != "." else ""
            case (("submodules" | "lfs"), ("true" | "false")):
                found[name] = value == "true"
            case "secret", _:
                found["secret"] = value
            case _:
                raise InvalidGitSourceError(
                    f"{name[:100]}={value[:100]} is unknown: expected subdirectory=FOLDER, submodules=true, lfs=true "
                    "or secret=NAME behind '#'"
                )
    if text and not found:
        raise InvalidGitSourceError(f"{text[:200]!r} is unknown: expected {_FORM}")
    return found


def url_problem(url: str) -> str | None:
    """Return what is wrong with the URL of a repository; None if `git` can be called with it."""
    if len(url) > LONGEST or not url.isprintable() or " " in url or "\\" in url:
        return f"the URL must have at most {LONGEST} printable characters without spaces"
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url[:200]!r} is not a URL"
    if parts.scheme not in SCHEMES or not url.startswith(f"{parts.scheme}://"):
        return f"{url[:50]!r} is not the URL of a Git repository: expected https://… or ssh://…"
    user, at, host = parts.netloc.rpartition("@")
    if at and parts.scheme != "ssh":
        return "the URL contains a user or a password: store them as a secret, and name it with #secret=NAME"
    if at and not _USER.match(user):
        return "the URL contains a password, or a user that is not valid"
    if (parts.scheme == "file") == bool(host) or (host and not _HOST.match(host)):
        return f"{host[:200]!r} is not the name of a host"
    if parts.query or "?" in url or parts.fragment or parts.path in ("", "/"):
        return "the URL must be that of a repository, without a query"
    if any(part.startswith("-") or part in (".", "..") for part in parts.path.split("/")):
        return "a part of the path of the URL begins with '-', or is '.' or '..'"
    return None


def path_problem(path: str) -> str | None:
    """Return what is wrong with a path in a repository."""
    parts = path.split("/") if path else []
    if len(path) > LONGEST or not path.isprintable() or "\\" in path:
        return f"the folder must have at most {LONGEST} printable characters"
    if any(part in ("", ".", "..") or part.startswith("-") or part.lower() == ".git" for part in parts):
        return f"{path[:200]!r} is not a folder or file in the repository"
    return None


def is_commit(ref: str) -> bool:
    """Return whether a ref is a full commit."""
    return _COMMIT.match(ref) is not None


def choose_commit(refs: Mapping[str, str], ref: str) -> str | None:
    """Return the commit of a ref among those of a repository, None if it has none: a tag before a branch, as `git`.

    Args:
        refs: object ids by name, such as `refs/heads/main`; the commits of annotated tags have names ending in `^{}`.
        ref: what the user named; empty for `HEAD`.
    """
    names = (ref, f"refs/tags/{ref}", f"refs/heads/{ref}") if ref else ("HEAD",)
    for name in names:
        if name in refs and (name == "HEAD" or name.startswith("refs/")):
            return refs.get(f"{name}^{{}}", refs[name])
    return None


def submodule_url(parent: str, url: str) -> str:
    """Return the URL of a submodule, which may be relative to that of its repository.

    Raises:
        InvalidGitSourceError: it is not valid.
    """
    if url.startswith(("./", "../")):
        scheme, _, rest = parent.partition("://")
        joined = urljoin(f"http://{rest.rstrip('/')}/", url)
        url = f"{scheme}://{joined.removeprefix('http://')}"
    elif match := re.fullmatch(r"([A-Za-z0-9_][\w.+-]*)@([A-Za-z0-9][A-Za-z0-9.-]*):([^/:].*)", url):
        url = f"ssh://{match[1]}@{match[2]}/{match[3]}"  # the short form of ssh
    if (problem := url_problem(url)) is not None:
        raise InvalidGitSourceError(f"the URL of a submodule, {url[:200]!r}, is refused: {problem}")
    return url
