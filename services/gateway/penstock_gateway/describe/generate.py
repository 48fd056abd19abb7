"""`python -m penstock_gateway.describe.generate FOLDER`: writes the contracts as files that any language can read.

- `events/<type>.json` and `commands/<name>.json`: JSON Schema 2020-12
- `asyncapi.yaml`: what goes over NATS, AsyncAPI 3.0
- `openapi.json`: the HTTP API, OpenAPI 3.1

The same contracts give the same bytes. Files of removed contracts are deleted; `samples/` is not touched.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Used by developers only: not a dependency of the gateway.
import yaml

from penstock_core.facts import FACTS
from penstock_core.registry.facts import MODEL_FACTS
from penstock_core.version import VERSION
from penstock_gateway.api_description import openapi
from penstock_gateway.app import create_app
from penstock_gateway.describe import asyncapi, compatibility, schemas


def files() -> dict[str, str]:
    """Return the text of every generated file by its path under the folder."""
    found = {f"events/{schemas.event_file(fact)}": _json(schemas.event(fact)) for fact in (*FACTS, *MODEL_FACTS)}
    found |= {f"commands/{schemas.command_file(model)}": _json(schemas.command(model)) for model in schemas.COMMANDS}
    found["asyncapi.yaml"] = _yaml(asyncapi.document(VERSION))
    found["openapi.json"] = _json(openapi.document(create_app()))
    return found


def write(folder: Path) -> list[Path]:
    """Write all files; return those that changed or were deleted.

    Raises:
        BreakingChangeError: the schema of an event would change incompatibly. Nothing is written.
    """
    expected = {folder / name: text for name, text in files().items()}
    for path, text in expected.items():
        if path.parent.name == "events" and path.is_file():
            why = compatibility.breaks(json.loads(path.read_text()), json.loads(text))
            if why:
                raise compatibility.BreakingChangeError(
                    f"{path.stem} has an incompatible change ({'; '.join(why)}): use a new version in its ce_type, and "
                    "keep reading the old one"
                )
    changed: list[Path] = []
    for path, text in expected.items():
        if not path.is_file() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            changed.append(path)
    for kind in ("events", "commands"):
        for path in (folder / kind).glob("*.json"):
            if path not in expected:
                path.unlink()
                changed.append(path)
    return changed


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


class _Dumper(yaml.SafeDumper):
    """Indents lists and writes no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Strings of digits are quoted: `08` is a string in YAML 1.1 and a number in 1.2.
    style = "'" if text.replace(".", "").isdecimal() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _yaml(data: Any) -> str:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m penstock_gateway.describe.generate FOLDER")
    try:
        for written in write(Path(sys.argv[1])):
            sys.stdout.write(f"{written}\n")
    except compatibility.BreakingChangeError as error:
        sys.exit(str(error))
