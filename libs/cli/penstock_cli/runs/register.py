"""`penstock register`: compile the user's pipeline, register it and publish the version."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.runs import run

if TYPE_CHECKING:
    from penstock.client.builds import Build


def register(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:PIPELINE]|git+URL",
            help="File or folder with the pipeline, or git+https://HOST/REPO@REF#subdirectory=DIR:PIPELINE.",
        ),
    ],
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Of a Git repository: request the build, and do not wait for it.")
    ] = False,
    json: Json = False,
) -> None:
    """Register a pipeline and publish the version: deployments, child runs and `latest` use it from now on.

    An equal version keeps its number. `penstock run` registers experiments, which these never use. A pipeline in a Git
    repository is fetched, compiled and registered by the platform.
    """
    # Heavy imports stay out of `--help`.
    from penstock import sources, user_modules
    from penstock_cli.platform import session
    from penstock_core import git_sources

    with run.json_errors(wanted=json):
        if source.startswith(git_sources.PREFIX):
            _register_from_git(source, wait=not no_wait, json=json)
            return
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


def _register_from_git(source: str, *, wait: bool, json: bool) -> None:
    from penstock_cli.platform import session

    with session.ensure_platform() as embedded:
        builds = session.open_session(embedded).client.builds
        build = builds.start(source)
        if wait:
            build = builds.wait(build, log=output.note)
    if json:
        output.as_json({**_version(build), "build": build.id, "commit": build.commit, "state": build.state})
    elif not wait:
        output.line(f"building {build.source}: follow it with `penstock builds log -f {build.id}`")
    else:
        for warning in build.warnings:
            output.note(f"warning: {warning}")
        known = "" if build.created else ", which was registered before"
        output.line(f"published {build.pipeline} v{build.version}{known} (commit {build.commit[:12]})")


def _version(build: Build) -> dict[str, object]:
    return {name: getattr(build, name) for name in ("pipeline", "version", "created", "published")}
