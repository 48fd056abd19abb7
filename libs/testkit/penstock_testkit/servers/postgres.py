"""A real PostgreSQL for tests: its own cluster on a free port of this machine, without fsync.

PostgreSQL refuses to run as root; in that case it runs as the user `postgres`, which Debian's package creates, in a
folder owned by that user.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import tempfile
from pathlib import Path

import psycopg

from penstock_testkit.servers.child import BinaryMissingError, Child
from penstock_testkit.servers.ports import free_ports

USER = "postgres"
_DATABASES = itertools.count(1)
_SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60", "shared_buffers=64MB")


class PostgresServer:
    """One cluster. `kill` or `stop`, then `start`, keep port and data."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))
        self._child: Child | None = None
        self._as: list[str] = []
        self.port = free_ports(1)[0]

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self, timeout: float = 60.0) -> None:
        """Start it, creating the cluster the first time, and wait until it answers.

        Raises:
            BinaryMissing: PostgreSQL is not installed, or there is no user to run it as.
            RuntimeError: it exited or did not answer in time; the message has the end of its log.
        """
        programs = find_programs()
        data = self._folder / "data"
        if not data.exists():
            self._make(programs, data, timeout)
        command = [str(programs / "postgres"), "-D", str(data), "-p", str(self.port), "-h", "127.0.0.1"]
        command += ["-k", str(self._folder), *(f"-c{setting}" for setting in _SETTINGS)]
        log = self._folder / "postgres.log"
        self._child = Child("postgres", [*self._as, *command], log, self._folder)
        self._child.wait_until(self._answers, timeout)

    def database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"test_{os.getpid()}_{next(_DATABASES)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def kill(self) -> None:
        """Stop it at once, like a crash; its children exit too."""
        if self._child is not None:
            self._child.kill()

    def stop(self) -> None:
        """Stop it and remove the cluster."""
        if self._child is not None:
            self._child.process.send_signal(3)  # SIGQUIT: at once, without a checkpoint
            self._child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self, programs: Path, data: Path, timeout: float) -> None:
        if os.geteuid() == 0:
            try:
                account = pwd.getpwnam(USER)
            except KeyError:
                raise BinaryMissingError(f"PostgreSQL cannot run as root, and there is no user {USER!r}") from None
            os.chown(self._folder, account.pw_uid, account.pw_gid)
            self._as = [
                "setpriv",
                f"--reuid={account.pw_uid}",
                f"--regid={account.pw_gid}",
                "--clear-groups",
                "--pdeathsig=KILL",
            ]
        command = [str(programs / "initdb"), "-D", str(data), "-U", USER, "--auth=trust", "-E", "UTF8", "-N"]
        made = Child("initdb", [*self._as, *command], self._folder / "initdb.log", self._folder)
        if made.process.wait(timeout) != 0:
            raise RuntimeError(f"initdb failed:\n{made.tail()}")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs: on PATH, else the newest of Debian's packages.

    Raises:
        BinaryMissing: PostgreSQL is not installed.
    """
    if (found := shutil.which("initdb")) is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if not versions:
        raise BinaryMissingError("no PostgreSQL server: install the package 'postgresql' (apt-get install postgresql)")
    return versions[-1].parent
