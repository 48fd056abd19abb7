"""The secrets of webhooks: triggers name where they are, and only the gateway reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from penstock_core.deployments import webhooks
from penstock_core.deployments.definition import Problem, WebhookTrigger
from penstock_core.deployments.webhooks import UnusableSecretError
from penstock_servicekit import process_secrets

_LIMIT = 64 * 1024
"""Largest file of a secret in bytes."""


def read(trigger: WebhookTrigger) -> bytes:
    """Return the secret of a webhook, as it is now.

    Raises:
        UnusableSecretError: it is not there. The message names the place, and has no part of the secret.
    """
    if trigger.secret_env:
        found = process_secrets.taken().get(trigger.secret_env) or os.environ.get(trigger.secret_env)
        if not found:
            raise UnusableSecretError(f"the gateway has no environment variable {trigger.secret_env}")
        return os.fsencode(found)
    try:
        with Path(trigger.secret_file).open("rb") as file:
            data = file.read(_LIMIT)
    except OSError as error:
        raise UnusableSecretError(f"the gateway cannot read {trigger.secret_file}: {error.strerror}") from error
    return data.rstrip(b"\r\n")


def check(trigger: WebhookTrigger) -> Iterator[Problem]:
    """The problem of a secret that could verify nothing now, with its field."""
    if bool(trigger.secret_env) == bool(trigger.secret_file):
        return  # the definition is invalid
    try:
        webhooks.check_secret(trigger.verification, read(trigger))
    except UnusableSecretError as error:
        yield "secret_env" if trigger.secret_env else "secret_file", str(error)
