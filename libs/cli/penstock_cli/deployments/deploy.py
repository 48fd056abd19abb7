"""`penstock deploy FILE` and `penstock apply`: register pipelines and apply deployments."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json
from penstock_cli.deployments import addresses
from penstock_cli.display import output
from penstock_cli.errors import UsageError
from penstock_cli.runs import run

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.deployments import Deployment
    from penstock.client.pipelines import Version
    from penstock.sources import PreparedPipeline

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show what would change; change nothing.")]


def deploy(
    source: Annotated[str, typer.Argument(metavar="FILE", help="File or folder that declares deployments.")],
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Register the pipelines of a file and apply the deployments that it declares.

    All deployments are checked before anything is published or applied. A file declares one with
    `training.deploy("nightly", triggers=[Cron("0 3 * * *")])`. An equal deployment
    stays as it is. With --dry-run, the pipelines are registered as experiments, which deployments do not use.
    Deployments start runs only while a platform is running: see `penstock up`.
    """
    # Heavy imports stay out of `--help`.
    from penstock import sources, user_modules
    from penstock_cli.platform import session

    with run.json_errors(wanted=json):
        user_modules.locate(source)
        with session.ensure_platform() as embedded:
            with run.stdout_to_stderr() if json else contextlib.nullcontext():
                declared = sources.load_deployments(source)
                definitions = {one.name: one.definition() for one in declared}
                pipelines = {one.pipeline.name: one.pipeline for one in declared}
                prepared = [sources.prepare(pipeline) for pipeline in pipelines.values()]
            opened = session.open_session(embedded)
            for one in prepared:
                run.print_warnings(one)
            client = opened.client
            versions, applied = _publish(client, prepared, definitions, dry_run=dry_run)
            if not json:
                _print_versions(versions, dry_run=dry_run)
            if not dry_run:
                applied = _apply_all(client, definitions, dry_run=False)
            calls = [] if dry_run or json else [line for one in applied for line in addresses.lines(client, one)]
    _print(applied, dry_run=dry_run, json=json)
    for text in calls:
        output.line(text)
    if not (dry_run or json):
        session.note_triggers(opened)


def _publish(
    client: Client, prepared: list[PreparedPipeline], definitions: Mapping[str, dict[str, Any]], *, dry_run: bool
) -> tuple[list[Version], list[Deployment]]:
    """Publish pipelines, once all deployments were checked with the versions that are to be published.

    With `dry_run`, these versions stay experiments. Returns them, and what applying the deployments would change.
    """
    versions = [client.pipelines.register(one, publish=False, log=output.note) for one in prepared]
    candidates = {version.pipeline: version.version for version in versions}
    checked = [
        client.deployments.apply(name, definition, dry_run=True, candidate=candidates[definition["pipeline"]])
        for name, definition in definitions.items()
    ]
    return versions if dry_run else [client.pipelines.register(one) for one in prepared], checked


def _print_versions(versions: list[Version], *, dry_run: bool) -> None:
    for one in versions:
        if not (dry_run and one.published):
            output.line(f"{'would publish' if dry_run else 'published'} {one.pipeline} v{one.version}")


def apply(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="File with deployments, in YAML or JSON.")] = Path(
        "penstock.yaml"
    ),
    dry_run: DryRun = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete deployments that are not in the file.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the file, for editors; apply nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Apply the deployments and notification rules of a penstock.yaml. Their pipelines must be registered."""
    from penstock_cli.platform import session

    if schema:
        from penstock.authoring import deployment_schema

        output.as_json(deployment_schema.schema())
        return
    with run.json_errors(wanted=json):
        declared, rules = _read(file)
        definitions = declared or {}
        with session.connect() as connected:
            client = connected.client
            known = client.deployments.notification_rules() if rules is not None else []
            if rules is not None:
                client.deployments.set_notification_rules(rules, dry_run=True)
            applied = _apply_all(client, definitions, dry_run=dry_run)
            if rules is not None and not dry_run:
                client.deployments.set_notification_rules(rules)
            extra = [one.name for one in client.deployments.list() if one.name not in definitions]
            if not prune or declared is None:
                extra = []
            for name in extra:
                if not dry_run:
                    client.deployments.delete(name, reason=f"not in {file.name}")
            calls = (
                []
                if dry_run or json
                else [line for one in applied if one.changed for line in addresses.lines(client, one)]
            )
    _print(applied, dry_run=dry_run, json=json, deleted=extra)
    if rules is not None and not json:
        change = "unchanged" if rules == known else "would change" if dry_run else "applied"
        output.line(
            f"{change:<12} notification rules of the project: {', '.join(one['name'] for one in rules) or 'none'}"
        )
    for text in calls:
        output.line(text)
    if not (dry_run or json):
        session.note_triggers(connected)


def _read(file: Path) -> tuple[dict[str, dict[str, Any]] | None, list[dict[str, Any]] | None]:
    """Return the deployments of a file, and the rules of the project; None: the file does not have them."""
    import yaml

    from penstock.authoring import deployments, notify

    class Loader(yaml.SafeLoader):
        """Reads `on`, `off`, `yes` and `no` as text, as YAML 1.2 does: `on` is the key of a trigger."""

    Loader.yaml_implicit_resolvers = {
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
    try:
        found = yaml.load(file.read_text(), Loader)  # noqa: S506 - a subclass of the safe loader
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is not YAML: {error}") from error
    content: dict[str, Any] = found if isinstance(found, dict) else {}
    rules = notify.from_yaml("the project", content["notify"]) if "notify" in content else None
    listed = content.get("deployments")
    if listed is None and rules is not None:
        return None, rules
    if not isinstance(listed, Mapping):
        raise UsageError(f"{file} has no deployments: write them as `deployments: {{NAME: {{pipeline: …}}}}`")
    applied = {str(name): deployments.from_mapping(str(name), _object(name, one)) for name, one in listed.items()}
    return applied, rules


def _object(name: object, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UsageError(f"deployment {name} must be an object with a pipeline and triggers")
    return found


def _apply_all(client: Client, definitions: Mapping[str, dict[str, Any]], *, dry_run: bool) -> list[Deployment]:
    """Check all before any is changed."""
    if not dry_run:
        for name, definition in definitions.items():
            client.deployments.apply(name, definition, dry_run=True)
    return [client.deployments.apply(name, one, dry_run=dry_run) for name, one in definitions.items()]


def _print(applied: list[Deployment], *, dry_run: bool, json: bool, deleted: list[str] | None = None) -> None:
    if json:
        output.as_json(
            {"deployments": [dataclasses.asdict(one) for one in applied], "deleted": deleted or [], "dry_run": dry_run}
        )
        return
    for one in applied:
        would = "would change" if one.revision else "would create"
        change = (would if dry_run else "applied") if one.changed else "unchanged"
        triggers = ", ".join(trigger["name"] for trigger in one.definition["triggers"]) or "no triggers"
        revision = f", revision {one.revision}" if one.revision else ""
        output.line(f"{change:<12} {one.name}  {one.definition['pipeline']}, {triggers}{revision}")
    for name in deleted or []:
        output.line(f"{'would delete' if dry_run else 'deleted':<12} {name}")
