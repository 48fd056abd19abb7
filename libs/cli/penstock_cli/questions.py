"""`penstock questions`: list and answer the questions that steps ask."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from penstock_cli.arguments import Json, RunArgument, parse_duration, resolve_run
from penstock_cli.display import output, waits
from penstock_cli.errors import UsageError

app = typer.Typer(help="List and answer the questions that steps ask.", no_args_is_help=True)

Step = Annotated[str, typer.Argument(metavar="STEP", help="Key of the step that asks.")]


@app.command("list")
def list_questions(
    run: Annotated[str | None, typer.Option("--run", help="Only questions of this run.")] = None,
    pipeline: Annotated[str | None, typer.Option("--pipeline", help="Only questions of this pipeline.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most questions.")] = 100,
    json: Json = False,
) -> None:
    """List open questions, oldest first."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        # Reading the run reports an unknown id.
        run_id = client.runs.get(resolve_run(client, run)).run_id if run else None
        found = client.questions.list(run_id, pipeline, limit=limit)
    if json:
        output.as_json([dataclasses.asdict(question) for question in found])
    elif found:
        output.show(waits.questions(found))
        if len(found) == limit:
            output.note(f"the oldest {limit} questions: use --limit for more")
    else:
        output.note("no open questions")


@app.command("answer")
def answer(
    run: RunArgument,
    step: Step,
    choice: Annotated[str | None, typer.Argument(metavar="CHOICE", help="One of the question's choices.")] = None,
    comment: Annotated[str, typer.Option("--comment", help="Free text, stored with the answer.")] = "",
    json: Json = False,
) -> None:
    """Answer the question of a step. The first answer counts."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        run_id = resolve_run(client, run)
        if choice is None:
            asked = [question for question in client.questions.list(run_id) if question.step == step]
            known = f": one of {', '.join(asked[0].choices)}" if asked else ""
            raise UsageError(f"missing argument CHOICE{known}")
        stored = client.questions.answer(run_id, step, choice, comment)
    if json:
        output.as_json(dataclasses.asdict(stored))
        return
    before = "" if stored.created else " already"
    output.line(f"step {stored.step} of run {stored.run_id} answered{before}: {stored.choice}")


@app.command("links")
def links(
    run: RunArgument,
    step: Step,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="TIME", help="Lifetime of the links, e.g. 2d; default 7d.")
    ] = None,
    json: Json = False,
) -> None:
    """Create links that answer a question.

    With a link, others can answer without the token of the platform.
    """
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        lifetime = parse_duration(expires) if expires else None
        found = client.questions.links(resolve_run(client, run), step, lifetime)
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    output.line(f"{found.question}  (expires {output.clock(found.expires_at)})")
    output.table(["choice", "link"], [*found.choices.items(), ("(page)", found.page)])
