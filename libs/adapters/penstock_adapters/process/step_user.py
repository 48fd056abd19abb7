"""The user that steps run as, if it is not the platform's, and what it can reach of the state folder.

In: the name of a user; the state folder. Out: a folder in which that user reads the sources, reads artifacts, adds
artifacts, and works in the folders of its own attempts; everything else is closed to it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from penstock_core.artifacts import layout
from penstock_core.errors import PenstockError

SHARED = ("artifacts", "sources", "work")
"""Names in the state folder that steps reach."""

UMASK = 0o027
"""Of the platform: what it creates is not readable by others, but by the group of a shared folder."""

_PASS = 0o710
_READ = 0o2750
_ADD = 0o3770
"""Modes of folders: pass through; read, and give the group to what is created; also add files, and remove own ones."""


class StepUserError(PenstockError):
    """Steps cannot run as the configured user."""


@dataclass(frozen=True, slots=True)
class StepUser:
    """A user for the processes of steps."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables that describe the user."""
        return {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}


def find(name: str) -> StepUser:
    """Return the user with a name or a number.

    Raises:
        StepUserError: there is none, it is the administrator, or this process may not change its user.
    """
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as error:
        raise StepUserError(f"PENSTOCK_STEP_USER={name}: there is no such user on this machine: create it") from error
    if os.geteuid() != 0:
        raise StepUserError(
            f"PENSTOCK_STEP_USER={name}: only a platform that runs as root can run steps as another user: "
            "start it as root, or remove the setting"
        )
    if entry.pw_uid == 0:
        raise StepUserError(f"PENSTOCK_STEP_USER={name}: that user is root: choose one without privileges")
    groups = tuple(group for group in os.getgrouplist(entry.pw_name, entry.pw_gid) if group != 0)
    return StepUser(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def share(home: Path, user: StepUser) -> None:
    """Let the user's group reach what steps need of a state folder, and nothing else. Repeatable."""
    os.umask(UMASK)
    for entry in home.iterdir():
        if entry.name not in SHARED and not entry.is_symlink():
            entry.chmod(entry.stat().st_mode & 0o700)
    for folder, mode in _modes(home):
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, -1, user.gid)
        folder.chmod(mode)
    lock = home / "artifacts" / layout.LOCK
    lock.touch()
    os.chown(lock, -1, user.gid)
    lock.chmod(0o640)


def own_folder(folder: Path, user: StepUser) -> None:
    """Give a new folder to the user. The platform's group is not needed: it runs as root."""
    os.chown(folder, user.uid, user.gid)
    folder.chmod(0o700)


def pass_through(folder: Path, user: StepUser) -> None:
    """Let the user reach folders of its own inside a folder."""
    os.chown(folder, -1, user.gid)
    folder.chmod(_PASS)


def _modes(home: Path) -> Iterator[tuple[Path, int]]:
    yield home, _PASS
    yield home / "work", _PASS
    yield home / "sources", _READ
    artifacts = home / "artifacts"
    yield artifacts, _READ
    yield artifacts / layout.TEMPORARY, _ADD
    yield artifacts / layout.OBJECTS, _READ
    for number in range(256):
        yield artifacts / layout.OBJECTS / f"{number:02x}", _ADD
