"""Text of others cannot control the terminal: every field that users fill, in the output of every command."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from penstock import Client
from penstock.client import platform
from penstock.errors import RefusedError
from penstock_cli import error_report
from penstock_cli.app import command
from penstock_cli.display import output
from penstock_testkit.environment import user_environment

T = TypeVar("T")
PENSTOCK = str(Path(sys.executable).with_name("penstock"))

HOSTILE = "owned\x1b[2J\x1b]0;title\x07\x1b]52;c;cm0=\x1b\\\x9b6n\x85\u202etxt.exe\u2066\b\b\x1b[8mhidden\rforged"
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
REDRAW = re.compile(r"\x1b\[\?25[lh]|\x1b\[[0-9]*A|\x1b\[2K|\r")
"""What the progress of a run needs: hide and show the cursor, move it up, erase a line."""
CONCEAL = "\x1b[8m"

FLOWS = f"""
from pathlib import Path
from penstock import ask, context, pipeline, step, wait_for_event

HOSTILE = {HOSTILE!r}

@step
def talk(text: str) -> str:
    print(text)
    print("\\x1b[32mgreen\\x1b[0m")
    context().log_param("text", text)
    return text

@step
def note(text: str) -> Path:
    path = Path("note.txt")
    path.write_text(text)
    return path

@step
def fail(text: str) -> str:
    raise ValueError(text)

@pipeline
def talking(text: str = HOSTILE):
    talk(text)
    note(text)
    fail(text)

@pipeline
def asking(text: str = HOSTILE):
    return talk(ask(text, choices=["yes", text]))

@pipeline
def waiting(key: str = HOSTILE):
    return wait_for_event("com.acme.hostile", key=key)
"""

BROKEN = f"raise ValueError({HOSTILE!r})\n"


def until(look: Callable[[], T], within: float = 60.0) -> T:
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.05)
    return found


class Stream(io.TextIOWrapper):
    """A standard stream in memory, of a terminal or not."""

    def __init__(self, *, on_terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors="replace", newline="")
        self._on_terminal = on_terminal

    def isatty(self) -> bool:
        return self._on_terminal

    def printed(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined]


class Workspace:
    """A folder with a running platform whose fields are all hostile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flows.py").write_text(FLOWS)
        (folder / "broken.py").write_text(BROKEN)
        self.environment = {
            **user_environment(),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "TERM": "xterm",
            "COLUMNS": "200",
        }
        self.client = Client(home=folder / ".penstock")
        self.process = subprocess.Popen(
            [PENSTOCK, "up", "--json"],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: platform.find(folder / ".penstock"))

    def plant(self) -> None:
        client, flows = self.client, str(self.folder / "flows.py")
        for name in ("talking", "asking", "waiting"):
            client.pipelines.register(f"{flows}:{name}")
        self.talking = client.run("talking", labels={"who": HOSTILE}).run_id
        self.asking = client.run("asking", labels={"name": HOSTILE}).run_id
        self.open = client.run("asking").run_id
        self.waiting = client.run("waiting").run_id
        self.cancelled = client.run("waiting").run_id
        client.runs.cancel(self.cancelled, reason=HOSTILE)
        until(lambda: len(client.questions.list()) == 2)
        page = client.questions.links(self.asking, "ask").page
        form = urllib.parse.urlencode({"choice": "yes", "name": HOSTILE[:100], "comment": HOSTILE})
        with urllib.request.urlopen(page, form.encode(), timeout=30) as answer:  # noqa: S310 - our own address
            assert answer.status == 200
        self.event = client.events.send("com.acme.hostile", {"text": HOSTILE}, key=HOSTILE, id=HOSTILE, source=HOSTILE)
        client.runs.wait(self.waiting, 60)
        client.runs.wait(self.asking, 60)
        self.sha256 = client.runs.wait(self.talking, 60).steps["note"].outputs["result"]["artifact"]["sha256"]
        self.model = client.models.register(
            "hostile", self.talking, "note", description=HOSTILE, tags={"tag": HOSTILE}, reason=HOSTILE, alias="best"
        )
        client.models.register("other", self.talking, "note")
        client.models.archive("other", 1, reason=HOSTILE)
        trigger = {"kind": "event", "name": "on", "types": ["com.acme.hostile"], "inputs": {"text": "data.text"}}
        for inputs in ({}, {"text": HOSTILE}):
            definition = {"pipeline": "talking", "triggers": [trigger], "inputs": inputs, "labels": {"x": HOSTILE}}
            client.deployments.apply("hostile", definition | {"description": HOSTILE})
        client.deployments.pause("hostile", reason=HOSTILE)
        client.limits.set("gpu", 1)
        client.retention.set("hostile", pipeline="talking", keep_for=86400.0)
        with contextlib.suppress(RefusedError):
            client.tokens.create(HOSTILE, "viewer")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    made = Workspace(tmp_path_factory.mktemp("hostile"))
    try:
        made.plant()
        yield made
    finally:
        made.stop()


def commands(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the commands without subcommands by their names."""
    below = getattr(tree, "commands", None)
    if not below:
        return {path: tree}
    return {name: found for key, sub in below.items() for name, found in commands(sub, f"{path} {key}".strip()).items()}


COMMANDS = commands(command())

CALLS: dict[str, list[str]] = {
    "run": ["flows.py:talking", "--logs"],
    "register": ["flows.py:talking"],
    "deploy": ["flows.py"],
    "apply": ["nothing.yaml"],
    "debug": ["{talking}", "fail"],
    "doctor": [],
    "console": ["--no-browser"],
    "whoami": [],
    "runs list": [],
    "runs show": ["{talking}"],
    "runs logs": ["{talking}", "--metrics"],
    "runs explain": ["{talking}"],
    "runs metrics": ["{talking}"],
    "runs compare": ["{talking}", "{asking}", "--all"],
    "runs cancel": ["{cancelled}", "--reason", HOSTILE],
    "runs rerun": ["{talking}"],
    "runs archive": ["{waiting}"],
    "runs delete": ["{cancelled}"],
    "runs export": ["{talking}"],
    "runs export-mlflow": ["{talking}", "--to", "mlflow"],
    "artifacts get": ["{talking}", "--step", "note", "--to", "copy.txt"],
    "artifacts preview": ["{talking}", "--step", "note"],
    "artifacts files": ["{talking}", "--step", "note"],
    "artifacts lineage": ["{sha256}"],
    "models list": [],
    "models show": ["hostile:1"],
    "models register": ["hostile", "{talking}", "note", "--description", HOSTILE],
    "models promote": ["hostile", "1", "best", "--reason", HOSTILE],
    "models delete-alias": ["hostile", "other", "--reason", HOSTILE],
    "models gate": ["hostile", "best", "accuracy > 1"],
    "models archive": ["other", "1", "--reason", HOSTILE],
    "models unarchive": ["other", "1", "--reason", HOSTILE],
    "models history": ["hostile"],
    "models get": ["hostile:1", "--to", "model.txt"],
    "versions list": [],
    "deployments list": [],
    "deployments show": ["hostile"],
    "deployments create": ["made", "--pipeline", "talking", "-p", f"text={HOSTILE}"],
    "deployments run": ["hostile", "--label", f"why={HOSTILE}"],
    "deployments pause": ["hostile", "--reason", HOSTILE],
    "deployments resume": ["hostile", "--reason", HOSTILE],
    "deployments rollback": ["hostile", "--to", "1"],
    "deployments delete": ["made", "--reason", HOSTILE],
    "deployments history": ["hostile"],
    "deployments diff": ["hostile", "1"],
    "deployments next": ["hostile"],
    "deployments tokens list": ["hostile"],
    "deployments tokens create": ["hostile", HOSTILE],
    "deployments tokens revoke": ["hostile", HOSTILE],
    "trace": ["{event}"],
    "triggers explain": ["{event}"],
    "triggers replay": ["hostile", "--revision", "1", "--event", "{event}", "--decisions-only"],
    "partitions list": ["hostile"],
    "partitions show": ["hostile", HOSTILE],
    "partitions add": ["hostile", HOSTILE],
    "backfills start": ["hostile", "--dry-run"],
    "backfills list": [],
    "backfills show": [HOSTILE],
    "backfills pause": [HOSTILE],
    "backfills resume": [HOSTILE],
    "backfills cancel": [HOSTILE],
    "backfills retry": [HOSTILE],
    "versions diff": ["talking@1", "asking@1"],
    "versions get": ["talking@1"],
    "builds list": [],
    "builds show": ["last"],
    "builds log": ["last"],
    "builds cancel": ["last"],
    "env show": ["talking@1"],
    "env diff": ["talking@1", "talking@1"],
    "env update": ["talking.py"],
    "runs upload": [],
    "notifications list": [],
    "notifications test": ["hostile"],
    "triggers test": ["hostile", "--event", json.dumps({"type": "com.acme.hostile", "data": {"text": HOSTILE}})],
    "questions list": [],
    "questions answer": ["{open}", "ask"],
    "questions links": ["{open}", "ask"],
    "events list": [],
    "events types list": [],
    "events types show": ["com.acme.none"],
    "events types set": ["com.acme.none", "nothing.json"],
    "events types delete": ["com.acme.none"],
    "events show": ["{event}"],
    "events send": ["com.acme.other", "--id", HOSTILE],
    "dead-letters list": [],
    "dead-letters show": ["1"],
    "dead-letters replay": ["1"],
    "dead-letters discard": ["1"],
    "limits list": [],
    "limits show": ["gpu"],
    "limits set": ["gpu", "2"],
    "limits unset": ["cpu"],
    "retention show": [],
    "retention set": ["hostile", "--pipeline", "talking", "--keep-for", "2d"],
    "retention delete": ["other"],
    "retention archive-after": ["7d"],
    "admin rebuild": [],
    "admin verify": [],
    "admin backup": ["backup"],
    "admin restore": ["backup"],
    "admin nats-config": ["nats-keys"],
    "admin gc": ["--dry-run"],
    "admin restore-runs": [],
    "login": [],
    "logout": [],
    "users list": [],
    "users block": [HOSTILE],
    "users unblock": [HOSTILE],
    "audit": ["--principal", HOSTILE],
    "secrets list": [],
    "secrets show": [HOSTILE],
    "secrets set": [HOSTILE, "--file", "flows.py"],
    "secrets allow": [HOSTILE, "--pipeline", HOSTILE],
    "secrets delete": [HOSTILE],
    "secrets rotate-key": [],
    "projects list": [],
    "projects show": ["default"],
    "projects create": ["hostile"],
    "projects archive": ["hostile"],
    "projects unarchive": ["hostile"],
    "tokens list": [],
    "tokens create": [HOSTILE, "--role", "viewer"],
    "tokens revoke": [HOSTILE],
}
SHOW_HOSTILE = {
    "run", "runs list", "runs show", "runs logs", "runs explain", "runs compare", "runs export", "artifacts preview",
    "models show", "models history", "deployments show", "deployments history", "questions list", "questions answer",
    "questions links", "events list", "events show", "events send",
}  # fmt: skip
"""Commands whose output has a planted text."""


def test_every_command_is_called() -> None:
    # `penstock up` prints its address and the log of the services (see test_logs.py), `down` the folder. `events tail`
    # does not end, and prints what `events list` prints.
    assert set(CALLS) == set(COMMANDS) - {"up", "down", "events tail"}


def call(arguments: list[str], *, on_terminal: bool, workspace: Workspace, patch: pytest.MonkeyPatch) -> str:
    """Run a command in this process, and return what it printed."""
    out, err = Stream(on_terminal=on_terminal), Stream(on_terminal=on_terminal)
    with patch.context() as patched:
        patched.chdir(workspace.folder)
        for name in [name for name in os.environ if name.startswith("PENSTOCK_")]:
            patched.delenv(name)
        for name, value in workspace.environment.items():
            patched.setenv(name, value)
        patched.setattr(sys, "stdout", out)
        patched.setattr(sys, "stderr", err)
        patched.setattr(sys, "stdin", io.StringIO("n\n"))
        output.console.cache_clear()
        try:
            command()(arguments, prog_name="penstock", standalone_mode=False)
        except (Exception, SystemExit) as error:
            error_report.report(error)
        finally:
            output.console.cache_clear()
    return out.printed() + err.printed()


def dangers(printed: str, *, on_terminal: bool, redraws: bool) -> set[str]:
    """Return what can control a terminal, except the colours of the command itself, and the redraws of progress."""
    if on_terminal:
        printed = COLOUR.sub("", printed)
        printed = REDRAW.sub("", printed) if redraws else printed
    return set(FORBIDDEN.findall(printed))


@pytest.mark.parametrize("name", CALLS)
def test_commands(name: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command on a terminal and in a pipe, and with `--json`."""
    keys = ("talking", "asking", "open", "waiting", "cancelled", "sha256")
    values = {key: str(getattr(workspace, key)) for key in keys} | {"event": str(workspace.event.sequence)}
    arguments = [*name.split(), *(values.get(one.strip("{}"), one) for one in CALLS[name])]
    printed = call(arguments, on_terminal=True, workspace=workspace, patch=monkeypatch)
    assert not dangers(printed, on_terminal=True, redraws=name in ("run", "runs rerun", "deployments run")), printed
    if CONCEAL in printed:
        assert name in ("run", "runs logs"), "only lines of logs keep their colours"
    if name in SHOW_HOSTILE:
        assert "owned" in printed, printed
        # The cells of a comparison are too short for an escape.
        assert name == "runs compare" or "\\x1b[2J" in printed or "\\u001b[2J" in printed, "shown as an escape"
        plain = call(arguments, on_terminal=False, workspace=workspace, patch=monkeypatch)
        # The export in a pipe is the history, byte by byte.
        assert name == "runs export" or not dangers(plain, on_terminal=False, redraws=False), plain
    if any("--json" in param.opts for param in COMMANDS[name].params):
        printed = call([*arguments, "--json"], on_terminal=False, workspace=workspace, patch=monkeypatch)
        assert not dangers(printed, on_terminal=False, redraws=False), printed


def test_errors_repeat_hostile_arguments(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command with hostile arguments, or with a hostile option."""
    for name in CALLS:
        count = sum(param.required and not param.opts[0].startswith("-") for param in COMMANDS[name].params)
        arguments = [HOSTILE] * count or [f"--{HOSTILE}"]
        printed = call([*name.split(), *arguments], on_terminal=True, workspace=workspace, patch=monkeypatch)
        assert not dangers(printed, on_terminal=True, redraws=False), printed


@pytest.mark.parametrize("debug", ["", "1"])
def test_tracebacks(debug: str, workspace: Workspace) -> None:
    """A module that fails at import, in a process of its own."""
    environment = {**workspace.environment, "PENSTOCK_DEBUG": debug}
    done = subprocess.run(
        [PENSTOCK, "run", "broken.py"],
        cwd=workspace.folder,
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    printed = done.stderr.decode()
    assert "owned\\x1b[2J" in printed and "Traceback" in printed
    assert not FORBIDDEN.findall(printed)


def test_logs_keep_their_colours_on_a_terminal_only(workspace: Workspace) -> None:
    """The command itself, on a pseudo-terminal and in a pipe."""
    arguments = [PENSTOCK, "runs", "logs", workspace.talking]
    primary, secondary = pty.openpty()
    with subprocess.Popen(arguments, cwd=workspace.folder, env=workspace.environment, stdout=secondary) as process:
        os.close(secondary)
        printed = b""
        with contextlib.suppress(OSError):  # the end of a pseudo-terminal
            while part := os.read(primary, 65536):
                printed += part
    os.close(primary)
    assert process.returncode == 0
    text = printed.decode().replace("\r\n", "\n")
    assert "\x1b[32mgreen\x1b[0m" in text
    assert not FORBIDDEN.findall(COLOUR.sub("", text)), text
    done = subprocess.run(
        arguments, cwd=workspace.folder, env=workspace.environment, capture_output=True, timeout=60, check=True
    )
    assert "green" in done.stdout.decode() and not FORBIDDEN.findall(done.stdout.decode())
