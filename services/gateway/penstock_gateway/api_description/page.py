"""The page of the HTTP API, from its OpenAPI document.

It is one file: no scripts, no fonts, nothing from other hosts. Parts are closed until they are opened, and operations
link to the schemas of their bodies.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, cast

Json = Mapping[str, Any]

_STYLE = """
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto 6rem; padding: 0 1.5rem }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid color-mix(in srgb, currentcolor 25%, transparent) }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere }
summary { cursor: pointer; padding: .25rem 0 }
summary b { display: inline-block; min-width: 4.2rem; font: .85em ui-monospace, monospace; font-weight: 700 }
summary span, small { opacity: .7 }
details > :not(summary) { margin-left: 1.2rem }
table { border-collapse: collapse; margin: .5rem 0 1rem; width: calc(100% - 1.2rem) }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0 }
th { font-weight: 600; opacity: .7 }
nav a { margin-right: .8rem }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

_CODE = re.compile(r"`([^`]+)`")


def render(document: Json) -> str:
    """Return the page as HTML."""
    info, schemas = document["info"], document["components"]["schemas"]
    sections = [_section(tag, _operations(document, tag["name"])) for tag in document["tags"]]
    shown = "".join(_schema(name, schema) for name, schema in schemas.items())
    links = "".join(f'<a href="#{escape(tag["name"])}">{escape(tag["name"])}</a>' for tag in document["tags"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])} API</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(info["title"])} API <small>{escape(info["version"])}</small></h1>
{_text(info["description"])}
<p>Requests below <code>/v1</code> need a token: <code>Authorization: Bearer TOKEN</code>. The token of a platform on
this machine is in the file <code>token</code> of its state folder. <a href="openapi.json">openapi.json</a> is the same
description as OpenAPI 3.1.</p>
<nav>{links}<a href="#schemas">schemas</a></nav>
{"".join(sections)}
<h2 id="schemas">schemas</h2>
{shown}
</body>
</html>
"""


def _operations(document: Json, tag: str) -> Iterator[str]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if tag in operation.get("tags", ()):
                yield _operation(path, method, operation)


def _section(tag: Json, operations: Iterable[str]) -> str:
    name = escape(tag["name"])
    return f'<h2 id="{name}">{name}</h2>\n{_text(tag["description"])}\n{"".join(operations)}'


def _operation(path: str, method: str, operation: Json) -> str:
    needed = [scope for scheme in operation.get("security", ()) for scopes in scheme.values() for scope in scopes]
    parts = [_text(operation.get("description", ""))]
    if needed:
        parts.append(f"<p><small>Permission: <code>{escape(', '.join(needed))}</code></small></p>")
    if operation.get("parameters"):
        rows = [
            (
                f"<code>{escape(one['name'])}</code><br><small>{escape(one['in'])}</small>",
                _type(one["schema"]),
                _needed(one.get("required", False), one["schema"]),
                _inline(one.get("description", "")),
            )
            for one in operation["parameters"]
        ]
        parts.append(_table(("parameter", "type", "", ""), rows))
    if body := operation.get("requestBody"):
        rows = [(f"<code>{escape(kind)}</code>", _type(one.get("schema", {}))) for kind, one in body["content"].items()]
        parts.append(_table(("request body", "type"), rows))
    rows = [
        (f"<code>{escape(status)}</code>", _bodies(answer.get("content", {})), _inline(answer.get("description", "")))
        for status, answer in sorted(operation["responses"].items())
    ]
    parts.append(_table(("response", "body", ""), rows))
    return (
        f'<details id="{escape(operation["operationId"])}"><summary><b>{method.upper()}</b><code>{escape(path)}</code> '
        f"<span>{_inline(operation['summary'])}</span></summary>\n{''.join(parts)}</details>\n"
    )


def _schema(name: str, schema: Json) -> str:
    parts = [_text(schema.get("description", ""))]
    required = set(schema.get("required", ()))
    if properties := schema.get("properties"):
        rows = [
            (
                f"<code>{escape(field)}</code>",
                _type(one),
                _needed(field in required, one),
                _inline(one.get("description", "")),
            )
            for field, one in properties.items()
        ]
        parts.append(_table(("field", "type", "", ""), rows))
    else:
        parts.append(f"<p>{_type(schema)}</p>")
    head = f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
    return f"{head}{''.join(parts)}</details>\n"


def _bodies(content: Json) -> str:
    return "<br>".join(f"{_type(one.get('schema', {}))} <small>{escape(kind)}</small>" for kind, one in content.items())


def _type(schema: Any) -> str:
    """Return a type in a few words, with links to schemas."""
    if not isinstance(schema, Mapping) or not schema:
        return "any"
    found = cast("Json", schema)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in found:
            return " or ".join(dict.fromkeys(_type(one) for one in found[key]))
    match found:
        case {"$ref": str(ref)}:
            name = escape(ref.rpartition("/")[2])
            return f'<a href="#schema-{name}"><code>{name}</code></a>'
        case {"const": value}:
            return f"<code>{escape(str(value))}</code>"
        case {"enum": [*values]}:
            return " or ".join(f"<code>{escape(str(value))}</code>" for value in values)
        case {"type": "array", "items": items}:
            return f"array of {_type(items)}"
        case {"type": "object", "additionalProperties": Mapping() as values} if values:
            return f"object of {_type(values)}"
        case {"type": [*kinds]}:
            return " or ".join(escape(str(kind)) for kind in kinds)
        case {"type": str(kind)}:
            return escape(f"{kind} ({found['format']})" if "format" in found else kind)
        case _:
            return "any"


def _needed(required: bool, schema: Any) -> str:
    if required:
        return "required"
    default = schema.get("default") if isinstance(schema, Mapping) else None
    return "" if default in (None, "", [], {}) else f"<small>default</small> <code>{escape(str(default))}</code>"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{one}</th>" for one in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table><tr>{head}</tr>\n{body}</table>\n"


def _text(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>\n" for part in text.split("\n\n") if part.strip())


def _inline(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
