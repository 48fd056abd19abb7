"""`penstock deployments`: list, show and change deployments."""

from __future__ import annotations

import dataclasses
import difflib
import json as codec
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import Json, parse_pairs
from penstock_cli.deployments import addresses, endpoint_tokens, notifications, run_now
from penstock_cli.display import output
from penstock_cli.display.formats import plural
from penstock_cli.errors import UsageError
from penstock_core.durations import format_duration
from penstock_core.pipeline.ir import Overlap

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.deployments import Clause, Decision

app = typer.Typer(help="Manage deployments: pipelines with triggers and inputs.", no_args_is_help=True)
app.add_typer(endpoint_tokens.app, name="tokens")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the deployment.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in its history.")]


@app.command("list")
def list_deployments(json: Json = False) -> None:
    """List deployments."""
    # Heavy imports stay out of `--help`.
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.list()
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
        return
    if not found:
        output.note("no deployments: declare one with PIPELINE.deploy(…) and run `penstock deploy FILE`")
        return
    rows = [
        (
            one.name,
            _pipeline(one.definition),
            ", ".join(describe(trigger) for trigger in one.definition["triggers"]),
            "paused" if one.paused else "active",
            str(one.revision),
            output.clock(min(one.next.values())) if one.next else "",
        )
        for one in found
    ]
    output.table(["name", "pipeline", "triggers", "state", "revision", "next tick"], rows)


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Show a deployment with its latest decisions."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.get(name)
        decisions = connected.client.deployments.decisions(name, limit=10)
    if json:
        output.as_json(dataclasses.asdict(found) | {"decisions": [dataclasses.asdict(one) for one in decisions]})
        return
    state = "paused" if found.paused else "active"
    revision = f"revision {found.revision} by {found.by}"
    output.line(f"deployment {found.name}: {_pipeline(found.definition)}, {state}, {revision}")
    for trigger in found.definition["triggers"]:
        output.line(f"  {trigger['name']}: {describe(trigger)}")
        for option in ("filter", "key", "not_before", "inputs_from"):
            if trigger.get(option):
                output.line(f"    {option}: {trigger[option]}")
        for parameter, expression in (trigger.get("inputs") or {}).items():
            output.line(f"    {parameter} = {expression}")
    for parameter, value in found.definition["inputs"].items():
        output.line(f"  {parameter} = {codec.dumps(value)}")
    if found.definition["max_active_runs"]:
        output.line(f"  {_active_runs(found.definition)}")
    if found.definition["late"]:
        output.line(f"  late: {_late(found.definition['late'])}")
    if found.definition["partitions"]:
        output.line(f"  partitions {_partitions(found.definition['partitions'])}")
    for rule in found.definition["notify"]:
        output.line(f"  notify {notifications.describe(rule)}")
    print_decisions(decisions)


@app.command("create")
def create(
    name: Name,
    pipeline: Annotated[str, typer.Option("--pipeline", help="Registered pipeline to run.")],
    cron: Annotated[
        list[str] | None, typer.Option("--cron", help="Five fields such as '0 3 * * *', or @daily; repeatable.")
    ] = None,
    every: Annotated[str | None, typer.Option("--every", metavar="TIME", help="An interval, such as 15m.")] = None,
    tz: Annotated[str, typer.Option("--tz", help="Time zone of --cron, such as Europe/Paris.")] = "UTC",
    on: Annotated[
        list[str] | None, typer.Option("--on", metavar="TYPE", help="Type of events, or com.acme.*; repeatable.")
    ] = None,
    filter: Annotated[str, typer.Option("--filter", metavar="CEL", help="Condition on the events of --on.")] = "",
    map: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="NAME=CEL", help="Input from the event, such as url=data.url; repeatable."),
    ] = None,
    endpoint: Annotated[bool, typer.Option("--endpoint", help="Run for HTTP requests, and answer them.")] = False,
    version: Annotated[
        int | None, typer.Option("--version", help="Published version to run; default the latest at each run.")
    ] = None,
    max_active_runs: Annotated[
        int | None, typer.Option("--max-active-runs", min=1, help="Runs that may be active at the same time.")
    ] = None,
    overlap: Annotated[
        Overlap, typer.Option("--overlap", help="What happens to further runs.", show_default=True)
    ] = Overlap.QUEUE,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--param",
            metavar="NAME=VALUE",
            help="Input of the pipeline; NAME=@FILE reads it from a file; repeatable.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Create or replace a deployment from the command line.

    The version must be published: see `penstock register`. Deployments start runs only while a platform is running.
    """
    from penstock_cli.platform import session

    mapping = parse_pairs("--map", map or [])
    triggers: list[dict[str, Any]] = []
    for n, expression in enumerate(cron or [], 1):
        triggers.append({"kind": "cron", "name": "cron" if n == 1 else f"cron-{n}", "cron": expression, "tz": tz})
    if every:
        triggers.append({"kind": "cron", "name": "every", "every": every})
    if on:
        triggers.append({"kind": "event", "name": "on", "types": on, "filter": filter, "inputs": mapping})
    elif filter or mapping:
        raise UsageError("--filter and --map need --on TYPE")
    if endpoint:
        triggers.append({"kind": "endpoint", "name": "endpoint"})
    definition = {
        "pipeline": pipeline,
        "version": version,
        "triggers": triggers,
        "max_active_runs": max_active_runs,
        "overlap": overlap.value,
    }
    with session.connect() as connected:
        client = connected.client
        inputs = _inputs(client, pipeline, version, param) if param else {}
        applied = client.deployments.apply(name, {**definition, "inputs": inputs})
        calls = addresses.lines(client, applied)
    if json:
        output.as_json(dataclasses.asdict(applied))
    else:
        listed = ", ".join(describe(trigger) for trigger in applied.definition["triggers"]) or "no triggers"
        output.line(f"deployment {applied.name}: {_pipeline(applied.definition)}, {listed}")
        for text in calls:
            output.line(text)
    session.note_triggers(connected)


app.command("run")(run_now.run_now)


@app.command("pause")
def pause(name: Name, reason: Reason = "", json: Json = False) -> None:
    """Pause a deployment: its triggers start no runs until it is resumed."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.pause(name, reason)
    _changed(found, f"deployment {name} is paused", json=json)


@app.command("resume")
def resume(name: Name, reason: Reason = "", json: Json = False) -> None:
    """Resume a paused deployment."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.resume(name, reason)
    _changed(found, f"deployment {name} is active", json=json)


@app.command("rollback")
def roll_back(
    name: Name,
    to: Annotated[int, typer.Option("--to", metavar="REVISION", help="Revision whose definition is restored.")],
    json: Json = False,
) -> None:
    """Restore the definition of an earlier revision, as a new revision."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.roll_back(name, to)
    _changed(found, f"deployment {name} has the definition of revision {to}, as revision {found.revision}", json=json)


@app.command("delete")
def delete(name: Name, reason: Reason = "", json: Json = False) -> None:
    """Delete a deployment. Its history stays, its runs continue."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        connected.client.deployments.delete(name, reason)
    if json:
        output.as_json({"name": name, "deleted": True})
    else:
        output.line(f"deployment {name} deleted")


@app.command("history")
def history(name: Name, json: Json = False) -> None:
    """List the revisions of a deployment."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.revisions(name)
    if json:
        output.as_json([dataclasses.asdict(one) for one in found])
        return
    rows = [
        (
            str(one.revision),
            f"rolled back to {one.restores}" if one.restores else one.change,
            one.by,
            output.clock(one.at),
            one.reason,
        )
        for one in found
    ]
    output.table(["revision", "change", "by", "at", "reason"], rows)


@app.command("diff")
def diff(
    name: Name,
    old: Annotated[int, typer.Argument(metavar="OLD", help="A revision.")],
    new: Annotated[int | None, typer.Argument(metavar="[NEW]", help="Another revision; default the latest.")] = None,
) -> None:
    """Show how the definition changed between two revisions."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        found = connected.client.deployments.revisions(name)
    definitions = {one.revision: one.definition for one in found if one.definition is not None}
    new = max(definitions) if new is None else new
    for wanted in (old, new):
        if wanted not in definitions:
            known = ", ".join(map(str, definitions))
            raise UsageError(f"revision {wanted} of deployment {name} has no definition of its own (known: {known})")
    texts = [codec.dumps(definitions[n], indent=2, sort_keys=True).splitlines() for n in (old, new)]
    before, after = texts
    for text in difflib.unified_diff(before, after, f"revision {old}", f"revision {new}", lineterm=""):
        output.line(text)


@app.command("next")
def next_ticks(
    name: Name,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1000, help="Ticks of each cron trigger.")] = 10,
    json: Json = False,
) -> None:
    """List the next ticks of the cron triggers of a deployment."""
    from penstock_cli.platform import session

    with session.connect() as connected:
        ticks = connected.client.deployments.ticks(name, count)
    if json:
        output.as_json(ticks)
        return
    rows = [(trigger, _full(at)) for trigger, found in ticks.items() for at in found]
    if not rows:
        output.note(f"deployment {name} has no cron trigger")
        return
    output.table(["trigger", "tick"], rows)


def _full(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(sep=" ", timespec="seconds")


def describe(trigger: dict[str, Any]) -> str:
    """A trigger in a few words."""
    window = trigger.get("window")
    combined = f" ({window['kind']} {window['seconds']:g} s)" if window else ""
    match trigger["kind"]:
        case "cron" if trigger["every"]:
            return f"every {trigger['every']:g} s"
        case "cron":
            zone = "" if trigger["tz"] == "UTC" else f" {trigger['tz']}"
            return f"cron {trigger['cron']}{zone}"
        case "event":
            return f"on {', '.join(trigger['types'])}{combined}"
        case "webhook":
            return f"webhook {trigger['provider']}{combined}"
        case "endpoint" if trigger["rate"]:
            return f"endpoint, {trigger['rate']:g} requests/s"
        case kind:
            return str(kind)


def print_decisions(decisions: list[Decision]) -> None:
    """Print decisions with their reasons."""
    for one in decisions:
        output.line(f"{one.deployment} / {one.trigger}: {_outcome(one)}")
        for clause in one.clauses:
            output.line(f"    {_clause(clause)}")


def _clause(clause: Clause) -> str:
    holds = {True: "true", False: "false", None: "failed"}[clause.holds]
    seen = ", ".join(f"{path} = {codec.dumps(value)}" for path, value in clause.values.items())
    details = [f"({seen})"] if seen else []
    return "  ".join([f"{holds:<6}", clause.text, *details, *([clause.error] if clause.error else [])])


def _outcome(one: Decision) -> str:
    match one.outcome:
        case "started":
            given = "" if one.inputs is None else f" with {codec.dumps(one.inputs)}"
            waits = f", which is queued: {one.waits_for}" if one.waits_for else ""
            return f"started run {one.run_id}{waits}" if one.run_id else f"would start a run{given}"
        case "scheduled":
            return f"run {one.run_id or ''} starts at {output.clock(one.start_at)}"
        case "collected" if one.run_id:
            return f"part of window {one.window}, whose run is {one.run_id}"
        case "collected":
            waits = f", which waits for {one.waits_for}" if one.waits_for else ""
            return f"part of window {one.window or 1}{waits}"
        case "throttled":
            return f"throttled: run {one.run_id} started shortly before"
        case "rejected":
            return f"rejected: {one.error}"
        case "limited":
            return f"limited: run {one.run_id} was skipped: {one.error}"
        case "building":
            return "requested a build, which publishes a version: see `penstock builds list`"
        case "filtered":
            return "filtered: the filter is false"
        case outcome:
            return outcome


def _active_runs(definition: dict[str, Any]) -> str:
    return f"at most {plural(definition['max_active_runs'], 'active run')}, overlap {definition['overlap']}"


def _late(late: dict[str, Any]) -> str:
    after = f"not finished after {format_duration(late['after'])}" if late["after"] else ""
    by = f"not succeeded by {late['by']} {late['tz']}" if late["by"] else ""
    steps = [f"step {key} not succeeded after {format_duration(one)}" for key, one in late["steps"].items()]
    return ", ".join(text for text in (after, by, *steps) if text)


def _partitions(declared: dict[str, Any]) -> str:
    """Partitions in a few words."""
    keys = ", ".join(declared["keys"][:10]) + (" …" if len(declared["keys"]) > 10 else "")
    since = f" from {declared['start']}" if declared["start"] else ""
    until = f" until {declared['end']}" if declared["end"] else ""
    zone = f", {declared['tz']}" if since else ""
    mapped = "".join(f", {name} = {part}" for name, part in declared["inputs"].items())
    return f"{declared['by']}{f': {keys}' if keys else ''}{since}{until}{zone}{mapped}"


def _pipeline(definition: dict[str, Any]) -> str:
    version = definition["version"]
    return f"{definition['pipeline']} {f'v{version}' if version else '(latest published)'}"


def _changed(found: Any, text: str, *, json: bool) -> None:
    if json:
        output.as_json(dataclasses.asdict(found))
    else:
        output.line(text)


def _inputs(client: Client, pipeline: str, version: int | None, given: list[str]) -> dict[str, Any]:
    """Parse `-p` by the parameters of the version."""
    from penstock.client.runs.inputs import encode_inputs
    from penstock_cli.runs import compiled

    params = client.pipelines.get(pipeline, version).definition["params"]
    return encode_inputs(client.artifacts, compiled.parse(params, given))
