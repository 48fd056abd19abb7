"""The fork servers of an executor: started on demand, one for each environment, and ended when idle."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from penstock_adapters.process.attempt_environment import AttemptEnvironment
from penstock_adapters.process.fork_server import ForkServer, ForkServerListener
from penstock_adapters.process.orphans import VARIABLE, WorkFolder
from penstock_adapters.process.step_user import StepUser
from penstock_core import step_environment

_END_LIMIT = 3.0

_Key = tuple[object, ...]


class ForkServerPool:
    """Keeps at most `most` idle fork servers, each for at most `idle` seconds."""

    def __init__(
        self,
        owner: ForkServerListener,
        work: WorkFolder,
        env: Mapping[str, str],
        most: int,
        idle: float,
        user: StepUser | None = None,
    ) -> None:
        self._owner = owner
        self._work = work
        self._env = dict(env)
        self._most = most
        self._idle = idle
        self._user = user
        self._loop = asyncio.get_running_loop()
        self._serving: dict[_Key, ForkServer] = {}
        self._alive: set[ForkServer] = set()
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._empty = asyncio.Event()

    def get(self, where: AttemptEnvironment, env: Mapping[str, str]) -> ForkServer:
        """The fork server for an environment and the environment variables of a step; starts one if there is none.

        Raises:
            OSError: it cannot be started.
            ValueError: a variable has a character that is not allowed.
        """
        key = (where.environment, where.source, where.python, *sorted(env.items()))
        server = self._serving.pop(key, None)
        if server is None:
            number = next(self._numbers)
            mark = f"{self._work.mark}.{number}"
            given = {**self._env, **(self._user.variables if self._user else {}), **env, VARIABLE: mark}
            variables = step_environment.variables(given, os.environ)
            if where.modules:
                variables |= _isolated(where, variables)
            elif paths := variables.get("PYTHONPATH"):
                # Fork servers and steps run in folders of their own.
                variables["PYTHONPATH"] = os.pathsep.join(str(Path(one).absolute()) for one in paths.split(os.pathsep))
            folder = self._work.path / str(number)
            server = ForkServer(self._owner, where, folder, variables, mark, self._user)
            self._alive.add(server)
        self._serving[key] = server  # last in order: the one used last
        return server

    def retire(self, server: ForkServer) -> None:
        """Give the server no more attempts; it exits once it has none."""
        self._serving = {key: other for key, other in self._serving.items() if other is not server}
        if server.jobs == 0:
            server.close()

    def released(self, server: ForkServer) -> None:
        """Note that a job of the server has ended."""
        if server.jobs:
            return
        server.idle_since = self._loop.time()
        if server not in self._serving.values():
            server.close()
            return
        unused = [other for other in self._serving.values() if other.jobs == 0]
        for other in unused[: max(0, len(unused) - self._most)]:
            self.retire(other)
        if self._timer is None:
            self._timer = self._loop.call_later(self._idle, self._end_idle)

    def forget(self, server: ForkServer) -> None:
        """Drop a server whose process has exited."""
        self._alive.discard(server)
        self.retire(server)
        self._loop.run_in_executor(None, shutil.rmtree, server.folder, True)
        if self._closing and not self._alive:
            self._empty.set()

    def all(self) -> list[ForkServer]:
        """Every fork server whose process runs."""
        return list(self._alive)

    async def close(self) -> None:
        """End all of them."""
        if self._timer is not None:
            self._timer.cancel()
        self._serving.clear()
        self._closing = True
        for end in (ForkServer.close, ForkServer.kill):
            for server in self._alive:
                end(server)
            if self._alive:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._empty.wait(), _END_LIMIT)

    def _end_idle(self) -> None:
        self._timer = None
        now = self._loop.time()
        unused = [server for server in self._serving.values() if server.jobs == 0]
        for server in unused:
            if now - server.idle_since >= self._idle:
                self.retire(server)
        waiting = [server.idle_since for server in self._serving.values() if server.jobs == 0]
        if waiting:
            self._timer = self._loop.call_at(min(waiting) + self._idle, self._end_idle)


def _isolated(where: AttemptEnvironment, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of an isolated virtual environment."""
    programs = Path(where.python).parent
    path = os.pathsep.join([str(programs), variables.get("PATH", os.defpath)])
    return {"PYTHONPATH": where.modules, "VIRTUAL_ENV": str(programs.parent), "PATH": path}
