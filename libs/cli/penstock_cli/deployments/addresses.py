"""Where a deployment receives webhooks, and how to call its endpoint."""

from __future__ import annotations

import json as codec
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.deployments import Deployment


def lines(client: Client, deployment: Deployment) -> list[str]:
    """Where a deployment receives webhooks, and how to call its endpoint, if it has them."""
    triggers, url = deployment.definition["triggers"], client.transport.locate().url
    hooks = [trigger for trigger in triggers if trigger["kind"] == "webhook"]
    name, project = deployment.name, client.project
    found = [
        f"send {hook['provider']} webhooks to {url}/v1/webhooks/{project}/{name}{_last(hook, hooks)}" for hook in hooks
    ]
    if all(trigger["kind"] != "endpoint" for trigger in triggers):
        return found
    schema = client.endpoints.schema(name)
    example, files = schema["example"], schema["files"]
    given = ", ".join(f"{key!r}: {_python(key, value, files)}" for key, value in example.items())
    return [
        *found,
        f"call {name} with a token of `penstock deployments tokens create {name} TOKEN`:",
        f'  curl {url}/v1/endpoints/{project}/{name} -H "Authorization: Bearer $TOKEN" {_curl_body(example, files)}',
        f"  Client(token=TOKEN).endpoints.call({name!r}, {{{given}}})",
    ]


def _curl_body(example: Mapping[str, Any], files: list[str]) -> str:
    """The options of curl that send inputs, as a form if some are files."""
    if not files:
        return f"--json {shlex.quote(codec.dumps(example, ensure_ascii=False))}"
    parts = [
        f"{key}=@FILE" if key in files else f"{key}={value if isinstance(value, str) else codec.dumps(value)}"
        for key, value in example.items()
    ]
    return " ".join(f"-F {shlex.quote(part)}" for part in parts)


def _python(key: str, value: Any, files: list[str]) -> str:
    return "Path('FILE')" if key in files else repr(value)


def _last(hook: Mapping[str, Any], hooks: list[Any]) -> str:
    """The last part of the path of a webhook: the name of the trigger, if there are several."""
    return f"/{hook['name']}" if len(hooks) > 1 else ""
