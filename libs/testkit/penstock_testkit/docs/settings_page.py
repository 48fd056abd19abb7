"""The tables of `docs/configuration.md`, generated from the settings classes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from pydantic_core import PydanticUndefined

from penstock_servicekit.settings import ServiceSettings

SERVICES = ("gateway", "scheduler", "executor", "artifacts", "builder", "cron", "triggers", "standalone")


def tables() -> dict[str, list[str]]:
    """Return the table rows of each service and of the shared settings, by heading."""
    found = {"Every service": list(_rows(ServiceSettings, skip=set()))}
    common = set(ServiceSettings.model_fields)
    for service in SERVICES:
        module = "main" if service == "standalone" else "settings"
        settings = getattr(importlib.import_module(f"penstock_{service}.{module}"), f"{service.capitalize()}Settings")
        rows = list(_rows(settings, skip=common))
        if rows:
            found[service.capitalize()] = rows
    return found


def _rows(settings: type[ServiceSettings], skip: set[str]) -> Iterator[str]:
    for name, field in settings.model_fields.items():
        if name in skip:
            continue
        if field.default_factory is not None:
            default = "by the machine"
        elif field.default is PydanticUndefined or field.default is None or field.default == "":
            default = ""
        else:
            default = f"`{field.default}`"
        yield f"| `PENSTOCK_{name.upper()}` | {default} | {field.description or ''} |"


def render() -> str:
    """Render all tables as Markdown."""
    parts: list[str] = []
    for heading, rows in tables().items():
        parts += [f"### {heading}", "", "| variable | default | what it sets |", "|---|---|---|", *rows, ""]
    return "\n".join(parts)
