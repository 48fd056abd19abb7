"""The secrets of webhooks and notifications: definitions name where they are, and only the gateway reads them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from penstock_core.deployments.definition import Problem, WebhookTrigger
from penstock_core.deployments.notify_rules import NotifyRule
from penstock_core.deployments.webhooks import UnusableSecretError
from penstock_servicekit import process_secrets

_LIMIT = 64 * 1024
"""Largest file of a secret in bytes."""


def read(user: WebhookTrigger | NotifyRule) -> bytes:
    """Return the secret that a trigger or a rule names, as it is now.

    Raises:
        UnusableSecretError: it is not there. The message names the place, and has no part of the secret.
    """
    if user.secret_env:
        found = process_secrets.taken().get(user.secret_env) or os.environ.get(user.secret_env)
        if not found:
            raise UnusableSecretError(f"the gateway has no environment variable {user.secret_env}")
        return os.fsencode(found)
    try:
        data = _content(user.secret_file)
    except OSError as error:
        raise UnusableSecretError(f"the gateway cannot read {user.secret_file}: {error.strerror}") from error
    return data.rstrip(b"\r\n")


def _content(path: str) -> bytes:
    """Return the content of a file. To open a FIFO would block until somebody writes into it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UnusableSecretError(f"the gateway cannot use {path}: it is not a regular file")
        return os.read(descriptor, _LIMIT)
    finally:
        os.close(descriptor)


def check(user: WebhookTrigger | NotifyRule, usable: Callable[[bytes], object]) -> Iterator[Problem]:
    """The problem of a secret that cannot be used now, with its field.

    Args:
        user: names the secret.
        usable: raises `UnusableSecretError` if a secret cannot be used.
    """
    if bool(user.secret_env) == bool(user.secret_file):
        return  # the definition is invalid
    try:
        usable(read(user))
    except UnusableSecretError as error:
        yield "secret_env" if user.secret_env else "secret_file", str(error)
