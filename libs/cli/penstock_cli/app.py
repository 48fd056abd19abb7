"""The command tree.

Importing all commands and building their parsers takes longer than most commands: only those that the arguments may
call are imported.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from penstock_cli import typer_readers
from penstock_cli.display import output
from penstock_core.version import VERSION

COMMANDS = {
    "run": "penstock_cli.runs.run:run",
    "register": "penstock_cli.runs.register:register",
    "deploy": "penstock_cli.deployments.deploy:deploy",
    "apply": "penstock_cli.deployments.deploy:apply",
    "debug": "penstock_cli.runs.debug:debug",
    "up": "penstock_cli.platform.up:up",
    "down": "penstock_cli.platform.down:down",
    "console": "penstock_cli.platform.console:console",
    "runs": "",
    "artifacts": "penstock_cli.artifacts:app",
    "models": "penstock_cli.models:app",
    "versions": "penstock_cli.versions:app",
    "builds": "penstock_cli.builds:app",
    "env": "penstock_cli.environments:app",
    "deployments": "penstock_cli.deployments.group:app",
    "partitions": "penstock_cli.partitions:app",
    "backfills": "penstock_cli.backfills:app",
    "triggers": "penstock_cli.deployments.triggers:app",
    "notifications": "penstock_cli.deployments.notifications:app",
    "trace": "penstock_cli.runs.trace:trace",
    "questions": "penstock_cli.questions:app",
    "events": "penstock_cli.events:app",
    "dead-letters": "penstock_cli.dead_letters:app",
    "limits": "penstock_cli.limits:app",
    "retention": "penstock_cli.retention:app",
    "login": "penstock_cli.logins:login",
    "logout": "penstock_cli.logins:logout",
    "users": "penstock_cli.logins:app",
    "secrets": "penstock_cli.secrets:app",
    "tokens": "penstock_cli.tokens:app",
    "projects": "penstock_cli.projects:app",
    "audit": "penstock_cli.audit:audit",
    "admin": "penstock_cli.admin:app",
    "doctor": "penstock_cli.platform.doctor:doctor",
    "whoami": "penstock_cli.tokens:whoami",
}
"""Where the function or the group of each command is, in the order of the help; `runs` is in `RUNS`."""

RUNS = {
    "list": "penstock_cli.runs.list_runs:list_runs",
    "show": "penstock_cli.runs.show:show",
    "logs": "penstock_cli.runs.logs:logs",
    "explain": "penstock_cli.runs.explain:explain",
    "metrics": "penstock_cli.runs.metrics:metrics",
    "compare": "penstock_cli.runs.compare:compare",
    "cancel": "penstock_cli.runs.cancel:cancel",
    "rerun": "penstock_cli.runs.rerun:rerun",
    "archive": "penstock_cli.runs.remove:archive",
    "delete": "penstock_cli.runs.remove:delete",
    "upload": "penstock_cli.runs.upload:upload",
    "export": "penstock_cli.runs.export:export",
    "export-mlflow": "penstock_cli.runs.mlflow_export:export_mlflow",
}


def command(arguments: Sequence[str] = ()) -> Any:
    """Return the command, ready to be called with these arguments; without arguments, with all subcommands."""
    return typer_readers.replace_readers(typer.main.get_command(app(arguments)))


def app(arguments: Sequence[str] = ()) -> typer.Typer:
    """Return the command as `command` does, before Typer compiles it."""
    made = typer.Typer(
        name="penstock",
        help="Run machine-learning pipelines written in plain Python.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    made.callback()(_root)
    for name in _called(COMMANDS, arguments):
        if name == "runs":
            made.add_typer(_runs(after_project(arguments)[1:]), name=name)
        else:
            _add(made, name, COMMANDS[name])
    return made


def _runs(arguments: Sequence[str]) -> typer.Typer:
    made = typer.Typer(help="List, show, follow, cancel and rerun runs.", no_args_is_help=True)
    for name in _called(RUNS, arguments):
        _add(made, name, RUNS[name])
    return made


def _called(commands: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """Return the commands that the arguments may call: one, if they begin with its name."""
    arguments = after_project(arguments)
    if arguments and arguments[0] == "--version":
        return []
    return [arguments[0]] if arguments and arguments[0] in commands else list(commands)


def after_project(arguments: Sequence[str]) -> Sequence[str]:
    """Return the arguments after the option `--project`."""
    if arguments and arguments[0] == "--project":
        return arguments[2:]
    return arguments[1:] if arguments and arguments[0].startswith("--project=") else arguments


def _add(parent: typer.Typer, name: str, where: str) -> None:
    module, _, attribute = where.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        parent.add_typer(found, name=name)
    else:
        parent.command(name)(found)


def _version(wanted: bool) -> None:
    if wanted:
        output.line(f"penstock {VERSION}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
    project: Annotated[
        str | None,
        typer.Option(
            "--project",
            metavar="NAME",
            help="Project to work in; default: $PENSTOCK_PROJECT, `project:` in penstock.yaml, else default.",
        ),
    ] = None,
) -> None:
    """Run machine-learning pipelines written in plain Python."""
    if project is not None:
        os.environ["PENSTOCK_PROJECT"] = project
