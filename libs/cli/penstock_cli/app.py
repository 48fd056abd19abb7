"""The command tree."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from penstock_cli import (
    admin,
    artifacts,
    events,
    limits,
    models,
    questions,
    retention,
    tokens,
    typer_readers,
    versions,
)
from penstock_cli.deployments import deploy, group, triggers
from penstock_cli.display import output
from penstock_cli.platform import doctor, down, up
from penstock_cli.runs import (
    cancel,
    compare,
    debug,
    explain,
    export,
    list_runs,
    logs,
    metrics,
    mlflow_export,
    register,
    remove,
    rerun,
    run,
    show,
)
from penstock_core.version import VERSION

app = typer.Typer(
    name="penstock",
    help="Run machine-learning pipelines written in plain Python.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
runs = typer.Typer(help="List, show, follow, cancel and rerun runs.", no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        output.line(f"penstock {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run machine-learning pipelines written in plain Python."""


app.command("run")(run.run)
app.command("register")(register.register)
app.command("deploy")(deploy.deploy)
app.command("apply")(deploy.apply)
app.command("debug")(debug.debug)
app.command("up")(up.up)
app.command("down")(down.down)
runs.command("list")(list_runs.list_runs)
runs.command("show")(show.show)
runs.command("logs")(logs.logs)
runs.command("explain")(explain.explain)
runs.command("metrics")(metrics.metrics)
runs.command("compare")(compare.compare)
runs.command("cancel")(cancel.cancel)
runs.command("rerun")(rerun.rerun)
runs.command("archive")(remove.archive)
runs.command("delete")(remove.delete)
runs.command("export")(export.export)
runs.command("export-mlflow")(mlflow_export.export_mlflow)
app.add_typer(runs, name="runs")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(models.app, name="models")
app.add_typer(versions.app, name="versions")
app.add_typer(group.app, name="deployments")
app.add_typer(triggers.app, name="triggers")
app.add_typer(questions.app, name="questions")
app.add_typer(events.app, name="events")
app.add_typer(limits.app, name="limits")
app.add_typer(retention.app, name="retention")
app.add_typer(admin.app, name="admin")
app.command("doctor")(doctor.doctor)
app.command("whoami")(tokens.whoami)


def command() -> Any:
    """Return the command, ready to be called."""
    return typer_readers.replace_readers(typer.main.get_command(app))
