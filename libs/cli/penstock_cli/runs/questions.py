"""`penstock questions`, `penstock runs answer` and `penstock events send`: what steps wait for."""

from __future__ import annotations

import dataclasses
import json as codec
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import parse_duration
from penstock_cli.display import output
from penstock_cli.failures import UsageError
from penstock_cli.runs import commands

if TYPE_CHECKING:
    from penstock.client.questions import Question
    from penstock_cli.display.output import Segments

events = typer.Typer(help="Send events to the steps that wait for them.", no_args_is_help=True)


def questions(
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Only of runs of this pipeline.")] = None,
    json: commands.Json = False,
) -> None:
    """List the questions that steps of runs ask and nobody has answered."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.questions.list(pipeline=pipeline)
    _print_questions(found, json=json)


def answer(
    name: commands.RunArgument,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="Key of the step that asks.")] = None,
    choice: Annotated[str | None, typer.Argument(metavar="[CHOICE]", help="The answer.")] = None,
    comment: Annotated[str, typer.Option("--comment", help="Why; kept with the step.")] = "",
    link: Annotated[
        bool, typer.Option("--link", help="Print links with which others can answer, without the token.")
    ] = False,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="How long links count, e.g. 2d; default a week.")
    ] = None,
    json: commands.Json = False,
) -> None:
    """Answer the question of a step. Without STEP, list the open questions of the run."""
    from penstock_cli.platform import session

    if expires is not None and not link:
        raise UsageError("--expires is about links: add --link")
    with session.connect() as connected:
        client = connected.client
        run_id = commands.resolve(client, name)
        if step is None:
            client.runs.get(run_id)  # says so where there is no such run
            _print_questions(client.questions.list(run_id), json=json)
        elif link:
            if choice is not None:
                raise UsageError("--link prints the links of all choices: leave the choice out")
            found = client.questions.links(run_id, step, parse_duration(expires) if expires else None)
            if json:
                output.as_json(dataclasses.asdict(found))
                return
            output.line(f"{found.question}  (until {output.clock(found.expires_at)})")
            output.table(["choice", "link"], [*found.choices.items(), ("(any)", found.page)])
        elif choice is None:
            asked = [one for one in client.questions.list(run_id) if one.step == step]
            known = f", one of {', '.join(asked[0].choices)}" if asked else ""
            raise UsageError(f"an answer is missing{known}: penstock runs answer {name} {step} CHOICE")
        else:
            done = client.questions.answer(run_id, step, choice, comment)
            if json:
                output.as_json(dataclasses.asdict(done))
                return
            before = "" if done.created else " already"
            output.line(f"step {done.step} of run {done.run_id} is answered{before}: {done.choice}")


@events.command("send")
def send(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Type of the event, such as com.acme.labels.ready.")],
    key: Annotated[str, typer.Option("--key", help="Which of the events of this type.")] = "",
    data: Annotated[str, typer.Option("--data", metavar="JSON", help="What the waiting steps give on.")] = "{}",
    id: Annotated[str | None, typer.Option("--id", help="The same id is the same event, within a day.")] = None,
    json: commands.Json = False,
) -> None:
    """Send an event to the steps that wait for it, now or later in runs that are there already."""
    from penstock_cli.platform import session

    try:
        value: Any = codec.loads(data)
    except ValueError as error:
        raise UsageError(f"--data is not JSON: {error}") from error
    with session.connect() as connected:
        sent = connected.client.events.send(type, value, key=key, id=id, source="penstock events send")
    if json:
        output.as_json(dataclasses.asdict(sent))
        return
    known = " was sent before" if sent.duplicate else " is stored"
    output.line(f"event {sent.id}{known}")
    for run_id, step in sent.delivered_to:
        output.line(f"it ends step {step} of run {run_id}")


def _print_questions(found: Sequence[Question], *, json: bool) -> None:
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
        return
    if not found:
        output.note("no open questions")
        return
    output.show(lines(found))


def lines(found: Iterable[Question]) -> Iterable[Segments]:
    """Open questions, each with the command that answers it."""
    for one in found:
        until = f", until {output.clock(one.until)}" if one.until else ""
        default = f", then {one.default!r}" if one.default is not None and one.until else ""
        yield [("? ", "yellow"), (one.question, "bold"), (f"  ({', '.join(one.choices)}){until}{default}", "")]
        yield [(f"  {command(one.run_id, one.step, one.choices)}", "dim")]


def command(run_id: str, step: str, choices: Sequence[str]) -> str:
    """The command that answers a question."""
    import shlex

    shown = "|".join(shlex.quote(choice) for choice in choices) or "CHOICE"
    return f"penstock runs answer {run_id} {shlex.quote(step)} {shown}"
