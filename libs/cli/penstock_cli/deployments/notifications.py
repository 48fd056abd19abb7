"""`penstock notifications`: test the notifications of deployments."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_core.durations import format_duration

app = typer.Typer(help="Test the notifications of deployments.", no_args_is_help=True)


@app.command("test")
def test(
    deployment: Annotated[str, typer.Argument(metavar="DEPLOYMENT", help="Name of the deployment.")],
    rule: Annotated[str | None, typer.Option("--rule", metavar="NAME", help="Only this rule.")] = None,
    json: Json = False,
) -> None:
    """Send a test notification for each rule of a deployment. Exits with 1 if one is not accepted."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.test_notifications(deployment, rule)
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
    else:
        if not found:
            output.note(f"deployment {deployment} notifies nobody: deploy it with notify=[Notify(…)]")
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
