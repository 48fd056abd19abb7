"""The command tree."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from penstock_cli import (
    admin,
    artifacts,
    limits,
    lineage,
    maintenance,
    models,
    retention,
    schedules,
    typer_readers,
    versions,
)
from penstock_cli.platform import doctor, up
from penstock_cli.runs import commands, compare, explain, list_runs, metrics, mlflow_export, questions, rerun, run
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


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run machine-learning pipelines written in plain Python."""


app.command("run")(run.run)
app.command("up")(up.up)
commands.app.command("list")(list_runs.list_runs)
commands.app.command("explain")(explain.explain)
commands.app.command("rerun")(rerun.rerun)
commands.app.command("metrics")(metrics.metrics)
commands.app.command("compare")(compare.compare)
commands.app.command("archive")(retention.archive_run)
commands.app.command("delete")(retention.delete_run)
commands.app.command("export-mlflow")(mlflow_export.export_mlflow)
commands.app.command("answer")(questions.answer)
app.command("questions")(questions.questions)
app.add_typer(questions.events, name="events")
artifacts.app.command("lineage")(lineage.lineage)
app.add_typer(commands.app, name="runs")
app.add_typer(versions.app, name="versions")
app.add_typer(schedules.app, name="schedules")
app.add_typer(limits.app, name="limits")
app.add_typer(retention.app, name="retention")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(models.app, name="models")
admin.app.command("gc")(maintenance.collect)
admin.app.command("restore")(maintenance.restore)
app.add_typer(admin.app, name="admin")
app.command("doctor")(doctor.doctor)


def command() -> Any:
    """The command, ready to be called."""
    return typer_readers.replace_readers(typer.main.get_command(app))
