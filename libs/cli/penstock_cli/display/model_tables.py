"""Registered models as people read them on a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock_cli.display import output
from penstock_cli.display.progress import size

if TYPE_CHECKING:
    from penstock.client.models import Alias, HistoryEntry, ModelVersion

_METRICS = 4


def as_object(version: ModelVersion) -> dict[str, Any]:
    """A version as JSON."""
    names = [item.name for item in dataclasses.fields(version) if item.name not in ("registry", "refused", "created")]
    found = {name: getattr(version, name) for name in names}
    if version.refused is not None:
        found["refused"] = dataclasses.asdict(version.refused)
    return found


def model(name: str, versions: Sequence[ModelVersion], aliases: Sequence[Alias]) -> None:
    """A model with its versions and aliases."""
    count = f"{len(versions)} version{'' if len(versions) == 1 else 's'}"
    output.line(f"model {name}: {count}")
    for alias in aliases:
        stands = f"version {alias.version}" if alias.version else "nothing"
        why = f" ({alias.reason})" if alias.reason else ""
        guard = f", gate: {alias.gate}" if alias.gate else ""
        forced = ", its gate passed by" if alias.forced else ""
        output.line(f"  @{alias.alias} is {stands}{why}{forced}{guard}")
    rows = [
        (
            f"v{one.version}",
            output.clock(one.at),
            one.format,
            size(one.size),
            _metrics(one),
            one.run_id,
            " ".join([*one.aliases, *(["archived"] if one.archived else [])]),
        )
        for one in versions
    ]
    if rows:
        output.table(["version", "at", "format", "size", "metrics", "run", "is"], rows)


def version(one: ModelVersion) -> None:
    """A version with all that is known of it."""
    named = f" ({', '.join(one.aliases)})" if one.aliases else ""
    output.line(f"model {one.reference}{named}{', archived' if one.archived else ''}")
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
        ("about", one.description),
        ("metrics", "  ".join([*(f"{k}={v:.6g}" for k, v in one.metrics.items()), *_non_finite(one)])),
        ("params", "  ".join(f"{k}={v}" for k, v in one.params.items())),
        ("tags", "  ".join(f"{k}={v}" for k, v in one.tags.items())),
    ]
    for name, text in facts:
        if text:
            output.line(f"  {name:<10}  {text}")


def registered(one: ModelVersion, alias: str | None) -> None:
    """What came of registering."""
    output.line(f"{one.reference} {'is registered' if one.created else 'was registered already'}")
    if one.refused is not None:
        output.line(f"it does not become {one.refused.alias}:")
        for clause in one.refused.clauses:
            output.line(f"  {clause}")
    elif alias is not None and alias in one.aliases:
        output.line(f"{one.model}@{alias} is version {one.version}")


def history(entries: Sequence[HistoryEntry]) -> None:
    """What happened, the oldest first."""
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
            previous = f" in place of v{entry.previous}" if entry.previous else ""
            return (
                f"v{entry.version} became {entry.alias}{previous}{', its gate passed by' if entry.forced else ''}{why}"
            )
        case "promotion-refused":
            return f"v{entry.version} did not become {entry.alias}"
        case "alias-removed":
            return f"v{entry.previous} is {entry.alias} no more{why}"
        case "gate-set":
            what = f"has the gate {entry.gate}" if entry.gate else "has no gate any more"
            return f"{entry.alias} {what}{why}"
        case _:
            return f"v{entry.version} {entry.kind}{why}"


def _metrics(one: ModelVersion) -> str:
    shown = [f"{name}={value:.4g}" for name, value in list(one.metrics.items())[:_METRICS]] + _non_finite(one)
    return " ".join(shown) + (" …" if len(one.metrics) > _METRICS else "")


def _non_finite(one: ModelVersion) -> list[str]:
    return [f"{name}={text}" for name, text in one.non_finite.items()]
