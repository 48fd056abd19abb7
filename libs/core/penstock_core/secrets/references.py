"""References to secrets: `secret:NAME` is the latest version of a secret, `secret:NAME@VERSION` that version.

A step uses a secret in one of three ways. Its text form, which is part of the compiled pipeline and of facts, is
`[VARIABLE=]secret:NAME[@VERSION][#file]`. `env:VARIABLE` passes a variable of the executor through to the step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from penstock_core import ids
from penstock_core.errors import InputError
from penstock_core.frozen import frozen

SCHEME = "secret:"
PASSED = "env:"
LOCAL_PREFIX = "PENSTOCK_SECRET_"

PATTERN = r"^secret:[A-Za-z0-9_][A-Za-z0-9_-]{0,99}(@[1-9][0-9]{0,8})?$"
"""JSON Schema pattern of references."""

USES_LIMIT = 32
"""Secrets of one step."""

_REFERENCE = re.compile(PATTERN.removesuffix("$") + r"\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_RESERVED = "PENSTOCK_"
_FILE = "#file"


class InvalidReferenceError(InputError):
    """A text is no reference to a secret, or a step cannot use a secret like this. The message has no value."""


@frozen()
class SecretReference:
    """A secret of a project by name; `version` is None for the latest one."""

    name: str
    version: int | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + (f"@{self.version}" if self.version is not None else "")


@frozen()
class SecretUse:
    """How a step gets a secret.

    Attributes:
        reference: the secret.
        variable: environment variable that has the value; empty: `context().secret(NAME)` alone has it.
        file: whether the variable has the path of a file with the value instead.
    """

    reference: SecretReference
    variable: str = ""
    file: bool = False

    def __str__(self) -> str:
        variable = f"{self.variable}=" if self.variable else ""
        return f"{variable}{self.reference}{_FILE if self.file else ''}"


def parse(text: str) -> SecretReference:
    """Read a reference.

    Raises:
        InvalidReferenceError: it is none. The message does not repeat it, since it may be the secret itself.
    """
    if not _REFERENCE.match(text):
        raise InvalidReferenceError(
            "must be a reference such as 'secret:NAME' or 'secret:NAME@2', not the secret itself: "
            "store it with `penstock secrets set NAME`"
        )
    name, _, version = text.removeprefix(SCHEME).partition("@")
    return SecretReference(name, int(version) if version else None)


def parse_use(text: str) -> SecretUse:
    """Read the text form of a use.

    Raises:
        InvalidReferenceError: it is none.
    """
    variable, equals, rest = text.rpartition("=")
    reference = parse(rest.removesuffix(_FILE))
    if equals:
        check_variable(variable)
    return SecretUse(reference, variable, rest.endswith(_FILE))


def passed(text: str) -> str:
    """Return the variable that is passed through to a step, if the text form of a use is of this kind; else empty.

    Raises:
        InvalidReferenceError: it is not a name.
    """
    if not text.startswith(PASSED):
        return ""
    check_variable(text.removeprefix(PASSED))
    return text.removeprefix(PASSED)


def local_variable(text: str) -> str:
    """Return the environment variable that has the secret of a use outside of the platform."""
    return local_name(parse_use(text).reference.name)


def local_name(name: str) -> str:
    """Return the environment variable that has a secret outside of the platform: `PENSTOCK_SECRET_DB` for `db`."""
    return LOCAL_PREFIX + name.upper().replace("-", "_")


def describe(text: str) -> str:
    """Return a use in words, for messages."""
    if passed(text):
        return "passed through"
    use = parse_use(text)
    kind = "file with " if use.file else ""
    return f"{kind}{use.reference}" + (f" as {use.variable}" if use.variable else "")


def variable(text: str) -> str:
    """Return the environment variable that a use sets; empty if it sets none."""
    return passed(text) or parse_use(text).variable


def check_texts(texts: Sequence[str]) -> None:
    """Check the text forms of all uses of one step.

    Raises:
        InvalidReferenceError: one is not valid, or they contradict each other.
    """
    variables = [name for text in texts if (name := passed(text))]
    uses = [parse_use(text) for text in texts if not passed(text)]
    check_uses(uses)
    if len(variables) > USES_LIMIT:
        raise InvalidReferenceError(f"a step is passed at most {USES_LIMIT} variables")
    if twice := {use.variable for use in uses if use.variable}.intersection(variables):
        raise InvalidReferenceError(f"the variable {min(twice)} is given by a secret and passed through")


def check_variable(name: str) -> None:
    """Check the name of an environment variable that a secret is given in.

    Raises:
        InvalidReferenceError: it is not valid, or one of the platform's own.
    """
    if not _VARIABLE.match(name):
        raise InvalidReferenceError(f"{name[:100]!r} is not the name of an environment variable")
    if name.startswith(_RESERVED):
        raise InvalidReferenceError(f"the variable {name} is reserved: names with {_RESERVED} are the platform's")


def check_uses(uses: Iterable[SecretUse]) -> None:
    """Check that the uses of one step do not contradict each other.

    Raises:
        InvalidReferenceError: there are too many, a variable is set twice, or two versions of a secret are used.
    """
    versions: dict[str, int | None] = {}
    variables: set[str] = set()
    for count, use in enumerate(uses, 1):
        if count > USES_LIMIT:
            raise InvalidReferenceError(f"a step uses at most {USES_LIMIT} secrets")
        if use.variable and use.variable in variables:
            raise InvalidReferenceError(f"two secrets are given in the variable {use.variable}")
        if versions.setdefault(use.reference.name, use.reference.version) != use.reference.version:
            raise InvalidReferenceError(f"two versions of the secret {use.reference.name!r} are used")
        variables.add(use.variable)


def check_name(name: str) -> str:
    """Return the name of a secret if it is valid.

    Raises:
        InvalidIdError: it is not.
    """
    return ids.check_name(name, "secret name")
