"""`track`: record the run of a plain script, without a platform or for one that runs elsewhere.

    with track("my experiment", params={"depth": 3}) as run:
        run.log_metric("loss", 0.1, step=1)

In: what the script logs. Out: a folder `tracked/<run id>` in the state folder, which a platform imports after the
script has finished. No server is involved before. With `PENSTOCK_URL`, the folder is `outbox/<run id>`, and a process
beside the script sends it to that platform, see `penstock.script_sender`.

    begin.json    what the run is: written before the folder gets its name
    about.json    interpreter, packages and Git commit: gathered beside the script
    run.points    measurements; run.events, run.commits: parameters, tags, artifacts, as steps of pipelines write them
    end.json      the outcome, written atomically
    lock          locked while the script runs, which distinguishes a running script from a killed one
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from penstock import script_sender
from penstock.client import platform
from penstock.client import project as projects
from penstock.errors import NotInScriptsError, PlatformFailedError
from penstock.runner import error_info
from penstock.runner.recorder import Recorder
from penstock.step_context import contexts
from penstock.step_context.contexts import Context
from penstock.store import FolderStore
from penstock_core import ids, script_runs

FOLDER = "tracked"
FORMAT = 1
NAME_LIMIT = 200
_SOURCE_LIMIT = 1024 * 1024
_ENVIRONMENT_TIMEOUT = 5.0
_SEND_TIMEOUT = 5.0
"""Seconds that the end of a script waits until the platform has everything."""

_ENVIRONMENT_LIMIT = 60 * 1024
"""Characters of JSON of what is installed: it travels in the log."""

Json = dict[str, Any]


class TrackedRun(Context):
    """A run of a script: everything that `context()` offers inside a step, and its `name`."""

    def __init__(self, name: str, run_id: str, sink: Recorder, project: str) -> None:
        pipeline = script_runs.pipeline_name(name)
        super().__init__(run_id=run_id, step=script_runs.STEP, pipeline=pipeline, project=project, sink=sink)
        self.name = name

    def register_model(self, name: str, model: object, **more: Any) -> None:
        """Not available in scripts: gates are evaluated by the registry of a platform.

        Raises:
            NotInScriptsError: always; the message shows the alternative.
        """
        raise NotInScriptsError(
            f"register_model({name!r}): a script has no access to the registry: store the model with "
            f"log_artifact({name!r}, model), then `penstock models register {name} {self.run_id} script -o {name}`"
        )

    def send_event(self, type: str, data: Any = None, *, key: str = "") -> None:
        """Not available in scripts, which need no platform.

        Raises:
            NotInScriptsError: always; the message shows the alternative.
        """
        raise NotInScriptsError(
            f"send_event({type!r}): a script is recorded without a platform: use Client().events.send({type!r}, …)"
        )

    def __repr__(self) -> str:
        return f"TrackedRun({self.name!r}, {self.run_id!r})"


class Tracking:
    """The context manager that `track` returns."""

    def __init__(
        self,
        name: str,
        params: Mapping[str, object] | None,
        tags: Mapping[str, str | float] | None,
        home: str | os.PathLike[str] | None,
    ) -> None:
        _check(name, params, tags)
        self._name = name
        self._params = dict(params or {})
        self._tags = dict(tags or {})
        self._home = platform.state_folder(home)
        self._platform = platform.from_environment() if home is None else None
        self._store = FolderStore(self._home / "artifacts")
        self._project = projects.current()
        self._pid = 0

    def __enter__(self) -> TrackedRun:
        platform.prepare_home(self._home)
        self._began = time.time()
        run_id = ids.run_id(int(self._began * 1000), os.urandom(10))
        self._folder = self._home / (FOLDER if self._platform is None else script_sender.OUTBOX) / run_id
        self._lock = _make(self._folder, self._begin(run_id))
        self._pid = os.getpid()
        self._recorder = Recorder(str(self._folder / "run"), self._save, _identity, self._load, _identity)
        self._about = threading.Thread(target=_record_environment, args=(self._folder, self._store), daemon=True)
        self._about.start()
        self._sender = self._send() if self._platform is not None else None
        run = TrackedRun(self._name, run_id, self._recorder, self._project or projects.DEFAULT)
        for name, value in self._tags.items():
            run.set_tag(name, value)
        self._using = contexts.use_context(run)
        self._using.__enter__()
        return run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._using.__exit__(None, None, None)
        if os.getpid() != self._pid:
            return  # in a forked child: the run belongs to its parent
        end = {"finished_at": time.time(), **_ending(error)}
        self._about.join(_ENVIRONMENT_TIMEOUT)
        recorder = self._recorder
        recorder.include_workers()
        for name in ("metrics", "non_finite", "params", "tags", "artifacts"):
            end[name] = getattr(recorder, name)
        _write(self._folder / "end.json", end)
        os.close(self._lock)
        if self._sender is not None:
            self._wait_for(self._sender)

    def _send(self) -> subprocess.Popen[bytes] | None:
        """Start the process that sends the run; without one, `penstock runs upload` sends it later."""
        command = [sys.executable, "-m", script_sender.__name__, str(self._folder)]
        try:
            with (self._folder / "sender.log").open("wb") as log:
                # Its own session: Ctrl-C ends the script only.
                return subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        except OSError:
            return None

    def _wait_for(self, sender: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _SEND_TIMEOUT
        while self._folder.is_dir() and sender.poll() is None and time.monotonic() < until:
            if script_sender.problem_of(self._folder):
                break
            time.sleep(0.02)
        if self._folder.is_dir():
            problem = script_sender.problem_of(self._folder)
            print(  # noqa: T201 - for the user of the script
                f"[penstock] the run {self._folder.name} is not sent completely"
                + (f" ({problem})" if problem else "")
                + f"; it is recorded in {self._folder}: `penstock runs upload` sends it",
                file=sys.stderr,
            )

    def _begin(self, run_id: str) -> Json:
        source = _script()
        return {
            "penstock_tracked": FORMAT,
            "run_id": run_id,
            "name": self._name,
            "began_at": self._began,
            "inputs": {name: contexts.plain(value) for name, value in self._params.items()},
            "host": socket.gethostname()[:200],
            "file": str(source) if source is not None else "",
            **({"project": self._project} if self._project else {}),
            **({"url": self._platform.url} if self._platform is not None else {}),
        }

    def _save(self, name: str, value: object) -> Json:
        # Imported only by scripts that log objects.
        from penstock import serialize

        return serialize.save(value, Any, self._store, where=f"artifact {name!r} of {self._name!r}")

    def _load(self, saved: Json) -> Any:
        from penstock import serialize

        return serialize.load(saved, Any, self._store, where=f"the checkpoint of {self._name!r}")


def track(
    name: str,
    params: Mapping[str, object] | None = None,
    *,
    tags: Mapping[str, str | float] | None = None,
    home: str | os.PathLike[str] | None = None,
) -> Tracking:
    """Record a plain script as a run; no platform needs to be running.

    If `PENSTOCK_URL` is set (and `PENSTOCK_TOKEN`), the run is sent to that platform while the script runs. What could
    not be sent is sent by the next script, or by `penstock runs upload`.

    Used as `with track("name") as run:`. `run` offers what `context()` offers in a step (`log_metric`, `log_param`,
    `set_tag`, `log_table`, `log_figure`, `log_artifact`), and inside of the block `context()` is `run`. Any number
    of scripts can do so concurrently. After the block, or after the script has died, `penstock runs list`, `show`,
    `metrics` and `compare` include the run.

    Args:
        name: of the experiment; runs of one name are listed as those of one pipeline.
        params: inputs of the run, for search and comparison.
        tags: texts by name, for search.
        home: the state folder of a platform on this machine; default `$PENSTOCK_URL`, `$PENSTOCK_HOME`, `.penstock`.

    Raises:
        TypeError: `name` is not a str, or `params` or `tags` are not dictionaries with str keys.
        ValueError: a name is empty, too long or has control characters.
        PlatformFailedError: the state folder cannot be written; when the block is entered.
    """
    return Tracking(name, params, tags, home)


def _check(name: object, params: object, tags: object) -> None:
    contexts.check_name(name, "track", NAME_LIMIT)
    for what, given in (("params", params), ("tags", tags)):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"track({name!r}): {what} must be a dictionary, not {type(given).__name__}")
        for one in given or {}:
            contexts.check_name(one, f"track({name!r}), {what}")


def _ending(error: BaseException | None) -> Json:
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return {"outcome": "succeeded"}
    if isinstance(error, KeyboardInterrupt):
        return {"outcome": "cancelled", "error": error_info.plain("Cancelled", "the script was interrupted")}
    if isinstance(error, SystemExit):
        return {"outcome": "failed", "error": error_info.plain("Exit", f"the script called exit with {error.code!r}")}
    return {"outcome": "failed", "error": error_info.describe(error)}


def _make(folder: Path, begin: Json) -> int:
    """Make the folder of a run, whole when it gets its name; returns the lock that says that the script lives."""
    hidden = folder.with_name(f".{folder.name}")
    try:
        hidden.mkdir(parents=True, mode=0o700)
        lock = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(hidden / "begin.json", begin)
        hidden.rename(folder)
    except OSError as error:
        raise PlatformFailedError(
            f"the run cannot be recorded in {folder.parent} ({error.strerror or error}): "
            "set PENSTOCK_HOME to a writable folder, or free space on its disk"
        ) from error
    return lock


def _write(path: Path, data: Json) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(data))
    part.replace(path)


def _script() -> Path | None:
    """The file of the program, where it is one."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    path = Path(os.path.abspath(file)) if file else None  # noqa: PTH100 - no symlinks resolved
    return path if path is not None and path.suffix == ".py" and path.is_file() else None


def _record_environment(folder: Path, store: FolderStore) -> None:
    """What the run ran with; beside the script, because asking Git takes a while."""
    # Not for scripts that only log: a tenth of a second on a slow disk.
    from penstock.bundle.environment import environment_info
    from penstock.bundle.git import git_info

    source = _script()
    about: Json = {"environment": environment_info()}
    if len(json.dumps(about)) > _ENVIRONMENT_LIMIT:
        about["environment"]["packages"] = {}
    about["git"] = git_info(source.parent if source is not None else Path.cwd())
    if source is not None and source.stat().st_size <= _SOURCE_LIMIT:
        sha256, size = store.put_file(source, known=True)
        about["source"] = {"sha256": sha256, "size": size, "filename": source.name}
    if folder.is_dir():
        _write(folder / "about.json", about)


def _identity(saved: Json) -> Json:
    return saved
