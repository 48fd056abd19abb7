"""`penstock env`: environments that pipelines declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.display import output
from penstock_cli.errors import UsageError

if TYPE_CHECKING:
    from penstock.client.client import Client

app = typer.Typer(help="Show, compare and update environments that pipelines declare.", no_args_is_help=True)

VersionName = Annotated[
    str, typer.Argument(metavar="PIPELINE[@VERSION]", help="Default: the latest published version.")
]


@app.callback()
def group() -> None:
    """Show, compare and update environments that pipelines declare."""


@app.command("show")
def show(
    version: VersionName,
    lock: Annotated[
        str | None, typer.Option("--lock", metavar="NAME", help="Print the lock of this environment.")
    ] = None,
    json: Json = False,
) -> None:
    """Show the environments of a version: Python, distributions with exact versions, and which steps use them.

    `--lock NAME` prints a requirements file with hashes, which pip and uv can install.
    """
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        environments, steps = _environments(connected.client, version)
        if lock is not None:
            if lock not in environments:
                raise UsageError(f"{version} has no environment {lock!r} (it has: {', '.join(environments) or 'none'})")
            output.line(connected.client.environments.lock(environments[lock]["digest"]).rstrip())
            return
    if json:
        output.as_json(environments)
        return
    if not environments:
        output.note(f"{version} declares no environment: its steps run in the one that it was registered from")
    for name, found in environments.items():
        used = ", ".join(step for step, environment in steps.items() if environment == name) or "none"
        output.line(f"{name}: Python {found['version']}, lock {found['digest'][:12]}, steps: {used}")
        if found.get("image"):
            output.line(f"image {found['image']}")
        output.table(["package", "version"], [(package, text) for package, text in sorted(found["packages"].items())])


@app.command("diff")
def diff(before: VersionName, after: VersionName, json: Json = False) -> None:
    """Compare the environments of two versions: distributions that were added, removed or have another version."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        old, _ = _environments(connected.client, before)
        new, _ = _environments(connected.client, after)
    rows = [
        (name, package, was, now)
        for name in sorted({*old, *new})
        for package, was, now in _changes(_content(old.get(name)), _content(new.get(name)))
    ]
    if json:
        output.as_json([dict(zip(("environment", "package", "before", "after"), row, strict=True)) for row in rows])
    elif rows:
        output.table(["environment", "package", "before", "after"], rows)
    else:
        output.note(f"{before} and {after} have equal environments")


@app.command("update")
def update(
    source: Annotated[str, typer.Argument(metavar="FILE[:PIPELINE]", help="File or folder with the pipeline.")],
    json: Json = False,
) -> None:
    """Resolve the environments of a pipeline again, and print which distributions have newer versions.

    Equal declarations keep their versions until then. The next `penstock run` or `register` uses the new ones.
    """
    # Heavy imports stay out of `--help`.
    from penstock import sources
    from penstock_cli.platform import session

    with session.ensure_platform() as embedded:
        declared = sources.load(source).compile().environments
        environments = session.open_session(embedded).client.environments
        rows: list[tuple[str, str, str, str]] = []
        for one in declared:
            before = environments.build(one, log=output.note)
            after = environments.build(one, refresh=True, log=output.note)
            changes = _changes(_content(before.resolved), _content(after.resolved))
            rows += [(one.name, package, was, now) for package, was, now in changes]
    if json:
        output.as_json([dict(zip(("environment", "package", "before", "after"), row, strict=True)) for row in rows])
    elif rows:
        output.table(["environment", "package", "before", "after"], rows)
    else:
        output.note("no distribution has a newer version" if declared else f"{source} declares no environment")


def _environments(client: Client, name: str) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return the environments of a version by name, and that of each step."""
    from penstock_cli.runs import published

    version = published.of(client, name)
    steps = {step: spec.get("environment") for step, spec in version.definition["steps"].items()}
    return version.environments, steps


def _content(environment: Mapping[str, Any] | None) -> dict[str, str]:
    return {"python": environment["version"], **environment["packages"]} if environment is not None else {}


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return names with versions before and after, of those that differ."""
    names = sorted({*before, *after})
    return [(name, before.get(name, ""), after.get(name, "")) for name in names if before.get(name) != after.get(name)]
