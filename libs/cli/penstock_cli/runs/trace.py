"""`penstock trace`: what caused a run or an event, and what it caused."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json, resolve_run
from penstock_cli.display import output

if TYPE_CHECKING:
    from penstock.client.trace import TraceNode


def trace(
    which: Annotated[
        str, typer.Argument(metavar="RUN|EVENT", help="Run id or `last`; or sequence or digest of an event.")
    ],
    json: Json = False,
) -> None:
    """Show what caused a run or an event, and what it caused."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        event = which.isdecimal() or len(which) == 32
        found = connected.client.trace(which if event else resolve_run(connected.client, which))
    if json:
        output.as_json(dataclasses.asdict(found))
        return
    output.show(_lines(found))


def _lines(node: TraceNode, first: str = "", rest: str = "") -> list[output.Segments]:
    """One line for each node of a tree; `first` and `rest` are what precedes its first and its other lines."""
    branch, last, bar = (output.symbols(*pair) for pair in (("├─ ", "|- "), ("└─ ", "`- "), ("│  ", "|  ")))
    lines: list[output.Segments] = [[(first, "dim"), *_node(node)]]
    for n, child in enumerate(node.caused, 1):
        end = n == len(node.caused)
        lines += _lines(child, rest + (last if end else branch), rest + ("   " if end else bar))
    return lines


def _node(node: TraceNode) -> output.Segments:
    requested = "bold" if node.requested else ""
    at = (f"  {output.clock(node.at)}", "dim")
    if node.kind == "event":
        about = f" {node.subject}" if node.subject else ""
        return [
            (f"event {node.id}: {node.type}{about}", requested),
            (f" from {node.source}, id {node.event_id}", ""),
            at,
        ]
    by = f" ({node.trigger})" if node.trigger else ""
    return [
        (f"run {node.id}: {node.pipeline} v{node.version} ", requested),
        (node.state, output.STYLES.get(node.state, "")),
        (by, ""),
        at,
    ]
