"""The options `secrets` and `env_from` of steps, and values in `env` that look like secrets."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from penstock.authoring import options
from penstock_core.pipeline.ir import Pipeline
from penstock_core.secrets import records, references
from penstock_core.secrets.references import InvalidReferenceError

_SECRET_NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|PWD|SECRET|TOKEN|CREDENTIALS?|(API|ACCESS|PRIVATE|SECRET)_?KEY|DSN)(_|$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|"
    r"^(gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk-|AKIA|ASIA|AIza|hf_|npg_|whsec_)[A-Za-z0-9_-]{10,}|"
    r"^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.|^[a-z][a-z0-9+.-]*://[^/@\s:]*:[^/@\s]+@"
)
_RANDOM_LENGTH = 24
_RANDOM_BITS = 3.5
"""Entropy of each character, in bits, from which a long word of letters and digits looks random."""


def secrets(value: Any) -> tuple[str, ...]:
    """The text forms of the uses of secrets, of `["db"]` or `{"DB_PASSWORD": "secret:db"}`.

    Raises:
        DefinitionError: they are not valid; with the user's line.
    """
    if isinstance(value, Mapping) and all(isinstance(one, str) for pair in value.items() for one in pair):
        texts = tuple(f"{variable}={reference}" for variable, reference in value.items())
    elif isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        texts = tuple(one if one.startswith(references.SCHEME) else f"{references.SCHEME}{one}" for one in value)
    else:
        # The value is not shown: somebody may have written a secret here.
        raise options.definition_error(
            'secrets must be a list of names, or a dictionary of variables and references: {"DB_PASSWORD": "secret:db"}'
        )
    try:
        references.check_texts(texts)
    except InvalidReferenceError as error:
        raise options.definition_error(f"secrets: {error}") from error
    return texts


def variables(value: Any) -> tuple[str, ...]:
    """The text forms of variables that are passed through.

    Raises:
        DefinitionError: they are not valid; with the user's line.
    """
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise options.definition_error("env_from must be a list of names of environment variables")
    texts = tuple(f"{references.PASSED}{name}" for name in dict.fromkeys(value))
    try:
        references.check_texts(texts)
    except InvalidReferenceError as error:
        raise options.definition_error(f"env_from: {error}") from error
    return texts


def secret_warnings(pipeline: Pipeline) -> list[str]:
    """Return a warning for each value in `env` of a step that looks like a secret: it is stored and shown as it is."""
    found: list[str] = []
    for spec in pipeline.steps.values():
        for name, value in spec.env.items():
            if looks_secret(name, value):
                where = f"{spec.file}:{spec.line}: " if spec.file and spec.line else ""
                secret = name.lower()
                found.append(
                    f"{where}env {name!r} of step {spec.name!r} looks like a secret, and is stored and shown as it is: "
                    f'set it with `penstock secrets set {secret}` and use secrets={{"{name}": "secret:{secret}"}}'
                )
    return found


def looks_secret(name: str, value: str) -> bool:
    """Return whether a variable is named like a secret, or its value looks like one."""
    if len(value) < records.VALUE_MINIMUM or value.lower() in ("true", "false", "none"):
        return False
    return bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value)) or _looks_random(value)


def _looks_random(value: str) -> bool:
    if len(value) < _RANDOM_LENGTH or not re.fullmatch(r"[A-Za-z0-9+/=_-]+", value):
        return False
    kinds = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    entropy = -sum(count / len(value) * math.log2(count / len(value)) for count in Counter(value).values())
    return kinds == 3 and entropy > _RANDOM_BITS
