"""Registered models as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock_cli.display import output
from penstock_cli.display.formats import plural, size

if TYPE_CHECKING:
    from penstock.client.models import Alias, HistoryEntry, ModelVersion

_METRICS = 4


def as_object(version: ModelVersion) -> dict[str, Any]:
    """Return a version as JSON."""
    names = [item.name for item in dataclasses.fields(version) if item.name not in ("registry", "refused", "created")]
    found = {name: getattr(version, name) for name in names}
    if version.refused is not None:
        found["refused"] = dataclasses.asdict(version.refused)
    return found


def model(name: str, versions: Sequence[ModelVersion], aliases: Sequence[Alias]) -> None:
    """Print a model with its versions and aliases."""
    output.line(f"model {name}: {plural(len(versions), 'version')}")
    for alias in aliases:
        target = f"version {alias.version}" if alias.version else "unset"
        why = f" ({alias.reason})" if alias.reason else ""
        guard = f", gate: {alias.gate}" if alias.gate else ""
        forced = ", gates bypassed" if alias.forced else ""
        output.line(f"  @{alias.alias} is {target}{why}{forced}{guard}")
    rows = [
        (
            f"v{one.version}",
            output.clock(one.at),
            one.format,
            size(one.size),
            _metrics(one),
            one.run_id,
            " ".join([*one.aliases, *_marks(one)]),
        )
        for one in versions
    ]
    if rows:
        output.table(["version", "created", "format", "size", "metrics", "run", "aliases"], rows)


def version(one: ModelVersion) -> None:
    """Print a version with all its fields."""
    named = f" ({', '.join(one.aliases)})" if one.aliases else ""
    marks = "".join(f", {mark}" for mark in _marks(one))
    output.line(f"model {one.reference}{named}{marks}")
    kind = f", {one.artifact['python_type']}" if one.artifact.get("python_type") else ""
    warning = ", loading it can run code" if one.unsafe else ""
    facts = [
        ("artifact", f"{one.sha256}"),
        ("format", f"{one.format}, {size(one.size)}{kind}{warning}"),
        ("run", f"{one.run_id}, step {one.step}, attempt {one.attempt}, {one.output}"),
        (
            "pipeline",
            f"{one.pipeline} v{one.pipeline_version}" if one.pipeline_version else f"{one.pipeline} (a script)",
        ),
        ("code", one.code[:12]),
        ("registered", f"{output.clock(one.at)}{f' by {one.by}' if one.by else ''}"),
        ("description", one.description),
        ("metrics", "  ".join([*(f"{k}={v:.6g}" for k, v in one.metrics.items()), *_non_finite(one)])),
        ("params", "  ".join(f"{k}={v}" for k, v in one.params.items())),
        ("tags", "  ".join(f"{k}={v}" for k, v in one.tags.items())),
    ]
    for name, text in facts:
        if text:
            output.line(f"  {name:<11}  {text}")


def registered(one: ModelVersion, alias: str | None) -> None:
    """Print the result of a registration."""
    output.line(f"{one.reference} {'registered' if one.created else 'exists already'}")
    if one.refused is not None:
        output.line(f"not promoted to {one.refused.alias}, a gate failed:")
        for clause in one.refused.clauses:
            output.line(f"  {clause}")
    elif alias is not None and alias in one.aliases:
        output.line(f"{one.model}@{alias} is version {one.version}")


def history(entries: Sequence[HistoryEntry]) -> None:
    """Print the history of a model, oldest first."""
    for entry in entries:
        by = f", by {entry.by}" if entry.by else ""
        output.line(f"{output.clock(entry.at)}  {_describe(entry)}{by}")
        shown = entry.clauses if entry.kind in ("promoted", "promotion-refused") else ()
        for clause in shown:
            output.line(f"            {clause}")


def _describe(entry: HistoryEntry) -> str:
    why = f": {entry.reason}" if entry.reason else ""
    match entry.kind:
        case "registered":
            return f"v{entry.version} registered{why}"
        case "promoted":
            previous = f", replacing v{entry.previous}" if entry.previous else ""
            return (
                f"v{entry.version} promoted to {entry.alias}{previous}{', gates bypassed' if entry.forced else ''}{why}"
            )
        case "promotion-refused":
            return f"v{entry.version} not promoted to {entry.alias}, a gate failed"
        case "alias-removed":
            return f"alias {entry.alias} of v{entry.previous} deleted{why}"
        case "gate-set":
            what = f"set to {entry.gate}" if entry.gate else "deleted"
            return f"gate of {entry.alias} {what}{why}"
        case _:
            return f"v{entry.version} {entry.kind}{why}"


def _marks(one: ModelVersion) -> list[str]:
    return [mark for mark, applies in (("experiment", one.experiment), ("archived", one.archived)) if applies]


def _metrics(one: ModelVersion) -> str:
    shown = [f"{name}={value:.4g}" for name, value in list(one.metrics.items())[:_METRICS]] + _non_finite(one)
    return " ".join(shown) + (" …" if len(one.metrics) > _METRICS else "")


def _non_finite(one: ModelVersion) -> list[str]:
    return [f"{name}={text}" for name, text in one.non_finite.items()]
