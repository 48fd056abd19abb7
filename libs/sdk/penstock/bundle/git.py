"""The Git commit of a folder, if it is part of a work tree and git is installed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

TIMEOUT = 3.0
"""Time limit of git in seconds; a version without a commit is better than a run that does not start."""

_USER = re.compile(r"^([a-z][a-z0-9+.-]*://)[^/@]*@", re.IGNORECASE)


def git_info(folder: Path) -> dict[str, Any] | None:
    """Commit, branch, address of the remote and whether files of the folder differ from the commit.

    Returns:
        A dictionary as `GitInfo` of the contracts, or None where there is no commit. The address has no credentials.
    """
    status = _start(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=normal", "--", ".")
    remote = _start(folder, "config", "--get", "remote.origin.url")
    text, address = _output(status), _output(remote)
    if text is None:
        return None
    heads = dict(line[2:].split(" ", 1) for line in text.splitlines() if line.startswith("# branch."))
    commit = heads.get("branch.oid", "")
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        # A repository without a commit says "(initial)".
        return None
    branch = heads.get("branch.head", "")
    return {
        "commit": commit,
        "branch": "" if branch == "(detached)" else branch[:255],
        "remote": without_credentials((address or "").strip())[:1000],
        "dirty": any(line and not line.startswith("#") for line in text.splitlines()),
    }


def without_credentials(address: str) -> str:
    """An address without user, password, query and fragment."""
    address = _USER.sub(r"\1", address)
    return re.split(r"[?#]", address, maxsplit=1)[0] if "://" in address else address


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str] | None:
    # No locks, no questions, and no program that the repository's own settings name.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        return subprocess.Popen(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
            errors="replace",
        )
    except OSError:
        return None


def _output(process: subprocess.Popen[str] | None) -> str | None:
    if process is None:
        return None
    try:
        text, _ = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return text if process.returncode == 0 else None
