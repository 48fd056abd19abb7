"""`penstock artifacts lineage`: where an artifact comes from, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from penstock_cli.display import output


def lineage(
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="Digest of the artifact.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which steps an artifact was made by, and which ones used it, with the artifacts between them."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.transport.json("GET", f"/v1/artifacts/{sha256}/lineage")
    if json:
        output.as_json(found)
        return
    about = found["filename"] or found["format"]
    output.line(f"{sha256[:16]}  {about}, {found['size']} B")
    for title, side in (("made by", found["up"]), ("used by", found["down"])):
        if side:
            output.line(title)
            for row in side:
                output.line(f"{'  ' * row['level']}{row['key'] or 'the run'}  {_about(row)}")
    if not found["whole"]:
        output.note("there is more than is shown")


def _about(row: dict[str, Any]) -> str:
    source = f", source {row['source'][:12]}" if row["source"] else ""
    flow = f"{_names(row['reads']) or 'nothing stored'} -> {_names(row['makes']) or 'nothing stored'}"
    return f"{flow}  ({row['pipeline']} v{row['version']}, run {row['run_id']}{source})"


def _names(uses: Iterable[dict[str, str]]) -> str:
    return ", ".join(f"{use['name']} {use['sha256'][:8]}" for use in uses)
