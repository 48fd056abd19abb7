"""Masks the values of secrets in what an attempt writes, measures and reports, before any of it leaves its machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from penstock_core.queries.series import Point
from penstock_core.secrets.masking import MaskedStream, Masker
from penstock_core.shipping.messages import Entry
from penstock_core.shipping.progress import Report

IN_OUTPUT = "SecretInOutput"
"""Type of the error of a step that returned the value of a secret."""


class Readable(Protocol):
    """The files of an attempt, see `penstock_core.shipping.tail.Tail`."""

    @property
    def exhausted(self) -> bool:
        """Whether the last look left nothing unread."""
        ...

    def entries(self, *, last: bool = False) -> list[Entry]:
        """The next entries of output and events."""
        ...

    def points(self, *, last: bool = False) -> list[Point]:
        """The next points of the metrics."""
        ...

    def commits(self, *, last: bool = False) -> list[Entry]:
        """The next lines about stored artifacts."""
        ...

    def progress(self, *, last: bool = False) -> Report | None:
        """The latest progress."""
        ...


class MaskedTail:
    """The files of an attempt without the values of its secrets."""

    def __init__(self, tail: Readable, masker: Masker) -> None:
        self._tail = tail
        self._masker = masker
        self._output = MaskedStream(masker)
        self._at = 0.0

    @property
    def exhausted(self) -> bool:
        """See the protocol."""
        return self._tail.exhausted

    def entries(self, *, last: bool = False) -> list[Entry]:
        """See the protocol. The end of the output waits while it may be the beginning of a value."""
        found: list[Entry] = []
        for entry in self._tail.entries(last=last):
            if "text" in entry:
                self._at = entry["at"]
                text = self._output.feed(str(entry["text"]))
                found += [{**entry, "text": text}] if text else []
            else:
                found.append(self._entry(entry))
        if last and self._tail.exhausted and self._output.pending:
            found.append({"at": self._at, "stream": "output", "text": self._output.feed("", last=True)})
        return found

    def points(self, *, last: bool = False) -> list[Point]:
        """See the protocol."""
        return [point._replace(name=self._masker.text(point.name)) for point in self._tail.points(last=last)]

    def commits(self, *, last: bool = False) -> list[Entry]:
        """See the protocol."""
        return [self._entry(entry) for entry in self._tail.commits(last=last)]

    def progress(self, *, last: bool = False) -> Report | None:
        """See the protocol."""
        report = self._tail.progress(last=last)
        return report._replace(text=self._masker.text(report.text)) if report is not None else None

    def _entry(self, entry: Entry) -> Entry:
        masked = {name: self._masker.json(value) if isinstance(value, str) else value for name, value in entry.items()}
        if "value" in entry:
            stored = "artifact" in entry or "checkpoint" in entry
            masked["value"] = _stored(entry["value"], self._masker) if stored else self._masker.json(entry["value"])
        return masked


def mask_end(end: Mapping[str, Any], masker: Masker) -> dict[str, Any]:
    """Return an `AttemptFinished` as JSON without the values of secrets.

    A step whose outputs or events contain a value failed: other steps would get a mask instead.
    """
    masked = dict(end)
    for name in ("error", "params", "tags"):
        if isinstance(found := end.get(name), dict):
            masked[name] = masker.json(found)
    for name in ("metrics", "non_finite"):
        if isinstance(found := end.get(name), dict):
            masked[name] = {masker.text(str(key)): value for key, value in found.items()}
    if isinstance(found := end.get("artifacts"), dict):
        masked["artifacts"] = {masker.text(str(key)): _stored(value, masker) for key, value in found.items()}
    if isinstance(found := end.get("models"), list):
        masked["models"] = [_model(one, masker) for one in found]
    outputs = end.get("outputs")
    leaking: list[str] = []
    if isinstance(outputs, dict):
        leaking += [f"output {key!r}" for key, value in outputs.items() if _stored(value, masker) != value]
    for one in end.get("events") or []:
        if masker.found_in(one):
            leaking.append(f"event {masker.text(str(one.get('type')))!r}")
    if leaking:
        why = (
            f"the {leaking[0]} contains the value of a secret: outputs and events are stored, and shown to everybody "
            "who may read the run. Return something else, and let the next step use the secret itself"
        )
        masked |= {"outcome": "failed", "outputs": {}, "events": [], "models": []}
        masked["error"] = {"type": IN_OUTPUT, "bases": [], "message": why, "traceback": ""}
    return masked


def _stored(value: Any, masker: Masker) -> Any:
    """Return a stored value without secrets. References to artifacts have none: what identifies them stays as it is."""
    match value:
        case {"value": plain, **rest}:
            return {**rest, "value": masker.json(plain)}
        case {"items": list(items)}:
            return {**value, "items": [_stored(one, masker) for one in items]}
        case {"fields": dict(fields)}:
            return {**value, "fields": {masker.text(str(name)): _stored(one, masker) for name, one in fields.items()}}
        case _:
            return value


def _model(model: Any, masker: Masker) -> Any:
    if not isinstance(model, dict):
        return model
    return {name: value if name == "artifact" else masker.json(value) for name, value in model.items()}
