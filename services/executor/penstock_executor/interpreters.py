"""Finds an interpreter on this machine for the environment of a version: by what is installed, never by path alone.

Candidates are the interpreters of those who registered the environment, where these exist here, the executor's own,
and those of the setting `pythons`. An interpreter fits if it has Python's implementation and minor version and every
distribution in the same version; one with the very same digest is preferred to one with further distributions.

Asking an interpreter takes a process, so answers are kept until its package folders change, which is looked up at most
every `RECHECK` seconds. A registrant's note of these folders spares the first question where nothing was installed
since.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import pydantic

from penstock_contracts.commands import EnvironmentInfo, InterpreterHint, InterpreterHints
from penstock_core import exhaustion, step_environment
from penstock_core.environments import installed
from penstock_core.environments.installed import Environment
from penstock_core.errors import PenstockError, UnavailableError

RECHECK = 0.1
"""Seconds in which attempts share one look at the package folders."""

_TIMEOUT = 60.0
_CODE = "from penstock.bundle import environment; environment.main()"


class EnvironmentMissingError(PenstockError):
    """No interpreter on this machine has the environment; the message says what is missing or differs."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter, and the digest of the environment that it has now."""

    python: str
    digest: str


class _Answer(pydantic.BaseModel):
    environment: EnvironmentInfo
    interpreter: InterpreterHint


class Interpreters:
    """Interpreters by the digest of the environment.

    Args:
        hints: where registrants had an environment.
        pythons: candidates besides.
    """

    def __init__(self, hints: Callable[[str], Awaitable[InterpreterHints]], pythons: Sequence[str]) -> None:
        self._hints = hints
        self._pythons = list(pythons)
        self._found: dict[str, tuple[Interpreter, Mapping[str, int]]] = {}
        self._checked: dict[str, float] = {}
        self._answers: dict[str, _Answer] = {}
        self._lock = asyncio.Lock()

    async def find(self, wanted: EnvironmentInfo) -> Interpreter:
        """An interpreter that has an environment.

        Raises:
            EnvironmentMissingError: this machine has none.
            UnavailableError: the hints could not be read now.
        """
        if (known := self._known(wanted.digest)) is not None:
            return known
        async with self._lock:
            if (known := self._known(wanted.digest)) is not None:
                return known
            found, folders = await self._search(wanted)
            self._found[wanted.digest] = (found, folders)
            return found

    def _known(self, digest: str) -> Interpreter | None:
        found, folders = self._found.get(digest, (None, {}))
        if found is None:
            return None
        now = time.monotonic()
        if now - self._checked.get(digest, -RECHECK) < RECHECK:
            return found
        if not _unchanged(found.python, folders):
            return None
        self._checked[digest] = now
        return found

    async def _search(self, wanted: EnvironmentInfo) -> tuple[Interpreter, Mapping[str, int]]:
        hints = (await self._hints(wanted.digest)).interpreters
        for hint in hints:
            if hint.folders and _unchanged(hint.python, hint.folders):
                return Interpreter(hint.python, wanted.digest), hint.folders
        candidates = dict.fromkeys([*(hint.python for hint in hints), *self._pythons])
        fitting: list[_Answer] = []
        lacking: list[tuple[str, list[str]]] = []
        for python in candidates:
            if not os.access(python, os.X_OK):
                lacking.append((python, ["it is not on this machine"]))
                continue
            try:
                answer = await self._ask(python)
            except (OSError, ValueError, TimeoutError) as error:
                if exhaustion.is_exhaustion(error):
                    raise UnavailableError(f"{python} cannot be asked what it has installed: {error}") from error
                lacking.append((python, [f"it does not say what it has installed: {error}"]))
                continue
            if answer.environment.digest == wanted.digest:
                return Interpreter(python, wanted.digest), answer.interpreter.folders
            if differences := installed.differences(_environment(wanted), _environment(answer.environment)):
                lacking.append((python, differences))
            else:
                fitting.append(answer)
        if fitting:
            best = fitting[0]
            return Interpreter(best.interpreter.python, best.environment.digest), best.interpreter.folders
        raise EnvironmentMissingError(_message(lacking))

    async def _ask(self, python: str) -> _Answer:
        known = self._answers.get(python)
        if known is not None and known.interpreter.folders and _unchanged(python, known.interpreter.folders):
            return known
        process = await asyncio.create_subprocess_exec(
            *(python, "-P", "-c", _CODE),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=step_environment.variables({}, os.environ),
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), _TIMEOUT)
        except TimeoutError:
            process.kill()
            raise
        if process.returncode != 0:
            last = errors.decode(errors="replace").strip().splitlines()[-1:]
            raise ValueError(last[0][:300] if last else f"exit code {process.returncode}")
        answer = _Answer.model_validate_json(output)
        # The path that it was asked by, not the one that it has for itself.
        hint = answer.interpreter.model_copy(update={"python": python})
        self._answers[python] = answer.model_copy(update={"interpreter": hint})
        return self._answers[python]


def _environment(info: EnvironmentInfo) -> Environment:
    return Environment(implementation=info.implementation, version=info.version, packages=info.packages)


def _unchanged(python: str, folders: Mapping[str, int]) -> bool:
    """Whether the interpreter is there and nothing was installed into or removed from its package folders."""
    try:
        return os.access(python, os.X_OK) and all(os.stat(path).st_mtime_ns == at for path, at in folders.items())  # noqa: PTH116
    except OSError:
        return False


def _message(lacking: Sequence[tuple[str, list[str]]]) -> str:
    """What to do; of the interpreters, the one that lacks least is described."""
    here = [one for one in lacking if one[1] != ["it is not on this machine"]] or list(lacking)
    python, differences = min(here, key=lambda one: len(one[1]))
    return (
        f"no interpreter on this machine has the environment of this version. {python}: "
        f"{installed.shorten(differences)}. Install these there, or register the pipeline again from the "
        "environment that shall run it (`penstock register FILE`, `penstock run FILE`), or set PENSTOCK_PYTHONS to an "
        "interpreter that has them"
    )
