"""`penstock runs logs`: the output of the steps of a run."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json, RunArgument, StepOption, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.views import LogLine, Run


def logs(
    name: RunArgument,
    step: StepOption = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Follow until the run finishes.")] = True,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, metavar="N", help="Begin with the last N lines.")
    ] = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Include logged metrics.")] = False,
    json: Json = False,
) -> None:
    """Print the output of the steps of a run."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        client = connected.client
        run_id = resolve_run(client, name)
        if step is not None:
            _check_step(client.runs.get(run_id), step)
        for line in _lines(client, run_id, step, tail, follow=follow, metrics=metrics or json):
            if json:
                shown = {k: getattr(line, k) for k in ("at", "step", "attempt", "stream", "text", "metric", "value")}
                output.json_line(shown)
            else:
                _print_line(line)
            if follow:
                output.flush()


def _lines(
    client: Client, run_id: str, step: str | None, tail: int | None, *, follow: bool, metrics: bool
) -> Iterator[LogLine]:
    """Yield the lines to print; with `tail`, only so many of those that exist, and then those that follow."""

    def wanted(line: LogLine) -> bool:
        return line.progress is None and (metrics or line.metric is None)

    after = 0
    if tail is not None:
        last: deque[LogLine] = deque(maxlen=tail)
        for line in client.runs.logs(run_id, step, follow=False):
            after = line.seq
            if wanted(line):
                last.extend(_split(line))
        yield from last
    if tail is None or follow:
        yield from filter(wanted, client.runs.logs(run_id, step, follow, after))


def _split(line: LogLine) -> Iterator[LogLine]:
    """Yield the lines of an output that was written at once."""
    if line.metric is not None:
        yield line
        return
    for text in line.text.splitlines():
        yield dataclasses.replace(line, text=text)


def _print_line(line: LogLine) -> None:
    attempt = f"#{line.attempt}" if line.attempt > 1 else ""
    prefix = f"{output.clock(line.at, precise=True)}  {line.step}{attempt} |"
    for text in str(line).splitlines():
        output.log_line(prefix, text)


def _check_step(run: Run, step: str) -> None:
    if step not in run.steps:
        known = ", ".join(list(run.steps)[:20])
        raise UsageError(f"run {run.run_id} has no step {step!r}; it has: {known}{' …' if len(run.steps) > 20 else ''}")
