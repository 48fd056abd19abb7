"""`penstock register`: compile the user's pipeline, register it and publish the version."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.runs import run


def register(
    source: Annotated[str, typer.Argument(metavar="FILE[:PIPELINE]", help="File or folder with the pipeline.")],
    json: Json = False,
) -> None:
    """Register a pipeline and publish the version: deployments, child runs and `latest` use it from now on.

    An equal version keeps its number. `penstock run` registers experiments, which these never use.
    """
    # Heavy imports stay out of `--help`.
    from penstock import sources, user_modules
    from penstock_cli.platform import session

    with run.json_errors(wanted=json):
        user_modules.locate(source)
        with session.ensure_platform() as embedded:
            with run.stdout_to_stderr() if json else contextlib.nullcontext():
                prepared = sources.prepare(source)
            run.print_warnings(prepared)
            version = session.open_session(embedded).client.pipelines.register(prepared, log=output.note)
    if json:
        output.as_json({name: getattr(version, name) for name in ("pipeline", "version", "created", "published")})
        return
    known = "" if version.created else ", which was registered before"
    output.line(f"published {version.pipeline} v{version.version}{known}")
