"""`penstock notifications`: the rules of the project, and tests of notifications."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_core.durations import format_duration

app = typer.Typer(help="List and test notifications.", no_args_is_help=True)


@app.command("list")
def list_rules(json: Json = False) -> None:
    """List the rules of the project, by which runs of all deployments notify."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.notification_rules()
    if json:
        output.as_json(found)
    elif not found:
        output.note("the project has no rules: write them as `notify` in a penstock.yaml, and run `penstock apply`")
    for rule in [] if json else found:
        output.line(describe(rule))


@app.command("test")
def test(
    deployment: Annotated[
        str | None,
        typer.Argument(metavar="[DEPLOYMENT]", help="Name of the deployment; default: rules of the project."),
    ] = None,
    rule: Annotated[str | None, typer.Option("--rule", metavar="NAME", help="Only this rule.")] = None,
    json: Json = False,
) -> None:
    """Send a test notification for each rule of a deployment or project. Exits with 1 if one is not accepted."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        deployments = connected.client.deployments
        if deployment is None:
            found = deployments.test_project_notifications(rule)
        else:
            found = deployments.test_notifications(deployment, rule)
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
    else:
        if not found:
            owner = f"deployment {deployment}" if deployment else "the project"
            how = "deploy it with notify=[Notify(…)]" if deployment else "write `notify` in a penstock.yaml"
            output.note(f"{owner} notifies nobody: {how}")
        for one in found:
            result = "sent" if one.sent else "not sent"
            output.line(f"{one.rule} ({one.kind}): {result}{f': {one.error}' if one.error else ''}")
    if not all(one.sent for one in found):
        raise typer.Exit(1)


def describe(rule: dict[str, Any]) -> str:
    """A rule in a few words."""
    target = rule["url"] or ", ".join(rule["to"]) or f"the URL in {rule['secret']}"
    throttle = f", repeated after {format_duration(rule['throttle'])}" if rule["throttle"] else ""
    return f"{rule['name']}: {rule['kind']} to {target} on {', '.join(rule['on'])}{throttle}"
