"""What differs between two versions of a pipeline: code, compiled pipeline and environments. Pure functions."""

from __future__ import annotations

import difflib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from penstock_core import source_bundles

_LINES = 20_000
"""Lines of one diff."""

_LEFT_OUT = frozenset({"file", "line", "dynamic_code", "code", "environments"})
"""Fields of a pipeline that say where in the user's files something is, or that the other parts of a diff show."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs, as text; empty where it is missing. `name` is its path, such as `steps.train.retries`."""

    name: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """What differs between two versions.

    Attributes:
        code: a unified diff of the files of their source bundles; empty if they are equal.
        pipeline: values of the compiled pipeline.
        environment: Python, and distributions by name.
    """

    code: str
    pipeline: list[Change] = field(default_factory=list[Change])
    environment: list[Change] = field(default_factory=list[Change])

    @property
    def empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.code or self.pipeline or self.environment)


def read_files(bundle: bytes) -> dict[str, bytes]:
    """Return the files of a source bundle by name.

    Raises:
        BundleRefusedError: it exceeds the bounds.
    """
    source_bundles.check_size(len(bundle))
    bounds = source_bundles.Bounds()
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(bundle), mode=source_bundles.READ_MODE) as tar:
        for member in tar:
            bounds.admit(member.name, member.size)
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                found[member.name] = content.read()
    return found


def diff_files(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> str:
    """Return a unified diff of files, as `git diff` prints it; of binary files, that they differ."""
    lines: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        names = ("/dev/null" if old is None else f"a/{name}", "/dev/null" if new is None else f"b/{name}")
        texts = [_text(one or b"") for one in (old, new)]
        if None in texts:
            lines.append(f"Binary files {names[0]} and {names[1]} differ")
            continue
        old_lines, new_lines = (text.splitlines() for text in texts if text is not None)
        lines += difflib.unified_diff(old_lines, new_lines, *names, lineterm="")
        if len(lines) > _LINES:
            return "\n".join([*lines[:_LINES], f"… only the first {_LINES} lines"]) + "\n"
    return "\n".join(lines) + "\n" if lines else ""


def diff_pipelines(before: Any, after: Any) -> list[Change]:
    """Return the values of two compiled pipelines that differ; steps are compared by name, calls by key."""
    old, new = dict(_leaves(before, "")), dict(_leaves(after, ""))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [Change(name, old.get(name, ""), new.get(name, "")) for name in names]


def diff_environments(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what differs between environments by name, each as the API returns it."""
    old, new = _packages(before), _packages(after)
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return [Change(name, old.get(name, ""), new.get(name, "")) for name in names]


def _packages(environments: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{environment}.{package}": version
        for environment, found in environments.items()
        for package, version in {"python": found["version"], **found["packages"]}.items()
    }


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the values in JSON with their paths. Elements of lists that have a key or a name are found by it."""
    match value:
        case dict():
            for name, inner in cast("dict[str, Any]", value).items():
                if name not in _LEFT_OUT:
                    yield from _leaves(inner, f"{path}.{name}" if path else name)
        case list():
            for number, inner in enumerate(cast("list[Any]", value)):
                name = str(number)
                if isinstance(inner, dict):
                    fields = cast("dict[str, Any]", inner)
                    name = str(fields.get("key") or fields.get("name") or number)
                yield from _leaves(inner, f"{path}.{name}")
        case _:
            yield path, value if isinstance(value, str) else json.dumps(value)


def _text(data: bytes) -> str | None:
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
