"""`penstock audit`: who made which requests."""

from __future__ import annotations

import dataclasses
import json as codec
import time
from pathlib import Path
from typing import Annotated

import typer

from penstock_cli.arguments import Json, parse_time
from penstock_cli.display import output


def audit(
    principal: Annotated[str | None, typer.Option("--principal", help="Only of this principal.")] = None,
    operation: Annotated[str | None, typer.Option("--operation", help="Such as request_run.")] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="Only allowed, refused or failed requests.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Only from this time or age on, such as 2d.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Only up to this time or age.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of entries.")] = 50,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="Write all entries to FILE as JSON lines.")
    ] = None,
    json: Json = False,
) -> None:
    """List requests that were refused or may have changed something, newest first."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    now = time.time()
    with session.connect() as connected:
        found = connected.client.audit(
            principal=principal,
            operation=operation,
            outcome=outcome,
            since=parse_time(since, now) if since else None,
            until=parse_time(until, now) if until else None,
            limit=None if export else limit,
        )
        if export is not None:
            with export.open("w") as file:
                count = sum(1 for one in found if file.write(codec.dumps(dataclasses.asdict(one)) + "\n"))
            output.line(f"{count} entries written to {export}")
            return
        entries = list(found)
    if json:
        output.as_json([dataclasses.asdict(one) for one in entries])
        return
    if not entries:
        output.note("no entries")
        return
    columns = ["time", "principal", "operation", "path", "from", "outcome", "count"]
    rows = [
        (
            output.clock(one.at),
            one.principal or "",
            one.operation or one.method,
            one.path,
            one.address,
            f"{one.outcome} {one.status or ''}".strip(),
            str(one.count),
        )
        for one in entries
    ]
    output.table(columns, rows)
