"""Simple parameters are parsed without pydantic, errors map to exit codes, and nothing heavy is imported early."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.errors import (
    ClientError,
    NoPlatformError,
    NotFoundError,
    RefusedError,
    RunFailedError,
    SourceError,
    UnauthorizedError,
)
from penstock_cli import error_report, errors, typer_readers
from penstock_cli.app import COMMANDS, RUNS, app, command
from penstock_cli.errors import DetachedError, UsageError
from penstock_cli.platform import session
from penstock_core.errors import DefinitionError, InputError


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (str, "3", "3"),
        (str | None, "x", "x"),
        (int, "3", 3),
        (int | None, "-3", -3),
        (Path, "a/b", Path("a/b")),
        (list[str] | None, "x", "x"),
        (bool, True, True),
    ],
)
def test_simple_types_are_parsed(annotation: type, text: object, value: object) -> None:
    read = typer_readers.reader(annotation)
    assert read is not None and read(text, None) == value


@pytest.mark.parametrize("annotation", [float, int | str, dict[str, int], None])
def test_other_types_are_left_to_typer(annotation: type) -> None:
    assert typer_readers.reader(annotation) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs", "list", "-n", "many"], "'many' is not a whole number"),
        (["runs", "list", "-n", "0"], "0 is out of range: at least 1 and at most 10000"),
        (["run"], "Missing argument"),
        (["run", "x", "--nothing"], "No such option"),
        (["nothing"], "No such command"),
    ],
)
def test_usage_errors_are_reported(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app(), arguments)
    code, text = done.exit_code, done.output
    if "whole number" in message or "out of range" in message:
        command = [str(Path(sys.executable).parent / "penstock"), *arguments]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        code, text = process.returncode, process.stderr
    assert code == 2 and message in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RunFailedError("r", "failed", None), 1),
        (DefinitionError("x"), 2),
        (InputError("x"), 2),
        (SourceError("x"), 2),
        (UsageError("x"), 2),
        (NotFoundError(404, "x"), 2),
        (RefusedError(422, "x"), 2),
        (RefusedError(500, "x"), 3),
        (UnauthorizedError(401, "x"), 3),
        (NoPlatformError("x"), 3),
        (ClientError("x"), 3),
        (OSError("x"), 3),
        (RuntimeError("x"), 3),
        (DetachedError("r", stops=False), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_map_to_exit_codes(error: BaseException, code: int) -> None:
    assert errors.exit_code(error) == code


def test_internal_errors_show_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert error_report.report(RuntimeError("odd")) == 3
    output = capsys.readouterr().err
    assert "internal error: RuntimeError: odd" in output and "PENSTOCK_DEBUG=1" in output and "Traceback" not in output


def test_the_platform_starts_before_heavy_imports() -> None:
    heavy = "{'typer', 'rich', 'pydantic', 'http.client', 'penstock.authoring', 'asyncio'}"
    code = (
        "import sys; from penstock_cli.platform import prestart; from penstock.client import embedded; "
        f"print(*{heavy} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_the_cli_does_not_import_pydantic() -> None:
    code = (
        "import sys; sys.argv = ['penstock', 'runs', 'list', '-n', '3', '--state', 'odd']\n"
        "from penstock_cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, *sorted(set(sys.modules) & {'pydantic', 'asyncio', 'nats'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n" and "expected one of queued" in done.stderr


def test_a_command_imports_no_other_commands_and_no_unused_parts_of_the_client() -> None:
    unused = {"penstock_cli.models", "penstock_cli.runs.run", "penstock.client.models", "penstock.authoring", "rich"}
    code = (
        "import sys; from penstock_cli.app import command; command(['runs', 'list', '--json'])\n"
        "import penstock_cli.platform.session, penstock_cli.display.summary\n"
        f"print(*{unused} & set(sys.modules), 'penstock_cli.runs.list_runs' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "True\n"


def test_wrong_names_are_reported_with_all_commands() -> None:
    assert set(command().commands) == set(COMMANDS) and set(command().commands["runs"].commands) == set(RUNS)
    for arguments, meant in ((["rums"], "runs"), (["runs", "lits"], "list")):
        done = CliRunner().invoke(app(arguments), arguments)
        assert done.exit_code == 2 and f"Did you mean '{meant}'" in done.output


def test_every_command_has_help() -> None:
    names = [["run"], ["up"], ["doctor"], ["artifacts", "get"], ["versions", "list"]]
    names += [["runs", name] for name in ("list", "show", "logs", "cancel")]
    names += [["deployments", name] for name in ("list", "show", "create", "pause", "history", "next", "delete")]
    for name in names:
        done = CliRunner().invoke(app(), [*name, "--help"])
        assert done.exit_code == 0 and "Usage:" in done.output and "--json" in done.output, name


def test_a_command_says_once_that_the_platform_does_not_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(session.time, "monotonic", lambda: now)
    notice = session.RetryNotice(lambda: 60.0)
    for seconds in (0.0, 1.0, 1.5, 5.0):
        now += seconds
        notice("HTTP 503")
    expected = "the platform does not answer yet (HTTP 503); trying for up to 60 s\n"
    assert capsys.readouterr().err == expected
