"""The command tree."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from penstock_cli import (
    admin,
    answering,
    artifacts,
    collecting,
    comparing,
    doctor,
    explain,
    exporting,
    light,
    limits,
    lineage,
    listing,
    metrics,
    models,
    rerun,
    retention,
    run,
    runs,
    schedules,
    up,
    versions,
)

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
        # Takes 20 ms; only here.
        from importlib.metadata import version

        typer.echo(f"penstock {version('penstock-cli')}")
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
runs.app.command("list")(listing.list_runs)
runs.app.command("explain")(explain.explain)
runs.app.command("rerun")(rerun.rerun)
runs.app.command("metrics")(metrics.metrics)
runs.app.command("compare")(comparing.compare)
runs.app.command("archive")(retention.archive_run)
runs.app.command("delete")(retention.delete_run)
runs.app.command("export-mlflow")(exporting.export_mlflow)
runs.app.command("answer")(answering.answer)
app.command("questions")(answering.questions)
app.add_typer(answering.events, name="events")
artifacts.app.command("lineage")(lineage.lineage)
app.add_typer(runs.app, name="runs")
app.add_typer(versions.app, name="versions")
app.add_typer(schedules.app, name="schedules")
app.add_typer(limits.app, name="limits")
app.add_typer(retention.app, name="retention")
app.add_typer(artifacts.app, name="artifacts")
app.add_typer(models.app, name="models")
admin.app.command("gc")(collecting.collect)
admin.app.command("restore")(collecting.restore)
app.add_typer(admin.app, name="admin")
app.command("doctor")(doctor.doctor)


def command() -> Any:
    """The command, ready to be called."""
    return light.lighten(typer.main.get_command(app))
