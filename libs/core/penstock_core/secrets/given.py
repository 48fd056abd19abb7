"""The secrets of one attempt, with their values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import field

from penstock_core.frozen import frozen
from penstock_core.secrets.masking import Masker
from penstock_core.secrets.records import SecretError

TOTAL_LIMIT = 64 * 1024
"""Bytes of JSON of all secrets of one attempt: they travel in one message, and never in a file."""


@frozen(kw_only=True)
class GivenSecrets:
    """Values by the text form of their use, and what masks them. The values are not part of its text form."""

    values: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    masker: Masker = field(default_factory=lambda: Masker(()), repr=False)

    def __bool__(self) -> bool:
        return bool(self.values)

    def encoded(self) -> bytes:
        """Return the values as JSON; empty without any."""
        return json.dumps(dict(self.values)).encode() if self.values else b""


def give(values: Mapping[str, str]) -> GivenSecrets:
    """Collect the secrets of an attempt.

    Args:
        values: by the text form of their use.

    Raises:
        SecretError: they are too large together.
    """
    given = GivenSecrets(values=values)
    if len(given.encoded()) > TOTAL_LIMIT:
        raise SecretError(f"the secrets of the step are too large: together they may have {TOTAL_LIMIT // 1024} KiB")
    return dataclasses.replace(given, masker=Masker(values.values()))
