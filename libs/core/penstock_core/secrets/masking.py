"""Masks the values of secrets in text, also where they were encoded, split into lines, or split over chunks.

Masked are a value as it is (a long one in pieces), each of its lines, each text of a JSON document, and all of these as
escaped by JSON, by Python's `repr` and in URLs, and in Base64, also in lines of it, and hexadecimal digits. What else a
program does with a value cannot be recognized: masking guards against accidents, not against the author of a step.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

_SHORTEST = 4
_SHORTEST_PART = 8
"""Characters of the shortest line, or text of a JSON document, that is masked by itself."""

_PIECE = 256
"""Characters of the pieces in which longer values are masked: this bounds the effort."""

_PARTS = 500
"""Lines or texts of one value that are masked by themselves."""

_ENCODED_PART = 100
"""Of these, how many are masked in other encodings, too."""

_DEPTH = 50

_BASE64_LINES = (57, 48)
"""Bytes in a line of Base64: of MIME and the program `base64`, and of PEM."""


class Masker:
    """Masks values. Texts without any of them are returned unchanged.

    Args:
        values: at least 4 characters each; shorter ones are not masked.
    """

    def __init__(self, values: Iterable[str]) -> None:
        found = {form for value in values for form in _forms(value)}
        # Longest first: of several that begin at one place, the longest is masked.
        self._forms = sorted(found, key=lambda form: (-len(form), form))
        self._pattern = re.compile(_alternatives(self._forms)) if found else None
        self.longest = len(self._forms[0]) if found else 0

    def __bool__(self) -> bool:
        return self._pattern is not None

    def __repr__(self) -> str:
        return f"Masker({len(self._forms)} forms)"

    def text(self, text: str) -> str:
        """Return a text with the values masked."""
        return _masked(text, self.places(text))

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return where values are, from and to, in order of their beginnings. They may overlap."""
        found: list[tuple[int, int]] = []
        match = self._pattern.search(text) if self._pattern is not None else None
        while match is not None and self._pattern is not None:
            found.append(match.span())
            match = self._pattern.search(text, match.start() + 1)
        return found

    def found_in(self, data: object) -> bool:
        """Return whether a value is in JSON data."""
        return self.json(data) != data

    def json(self, data: Any) -> Any:
        """Return JSON data with the values masked in all texts, also in the names of fields."""
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, dict):
            items: Mapping[Any, Any] = data
            return {self.json(name): self.json(value) for name, value in items.items()}
        if isinstance(data, list | tuple):
            entries: Iterable[Any] = data
            return [self.json(entry) for entry in entries]
        if isinstance(data, int | float) and not isinstance(data, bool):
            # A value of digits may have become a number.
            shown = repr(data)
            return data if self.text(shown) == shown else MASK
        return data

    def begun(self, text: str) -> int:
        """Return how many characters at the end of a text may be the beginning of a value that goes on later."""
        window = text[-(self.longest - 1) :] if self.longest > 1 else ""
        most = 0
        for form in self._forms:
            start = max(0, len(window) - len(form) + 1)
            most = max(most, _overlap(window, start, form, most))
        return most


class MaskedStream:
    """Masks a text that arrives in chunks. The end of a chunk that may begin a value waits for the next one."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._kept = ""

    @property
    def pending(self) -> bool:
        """Whether a part of the text waits."""
        return bool(self._kept)

    def feed(self, chunk: str, *, last: bool = False) -> str:
        """Return what can be shown after this chunk; with `last`, everything."""
        text = self._kept + chunk
        places = self._masker.places(text)
        cut = len(text) if last else len(text) - self._masker.begun(text)
        # A value that is complete waits as a whole if its end may begin another one.
        cut = min((start for start, end in places if start < cut < end), default=cut)
        self._kept = text[cut:]
        return _masked(text[:cut], [(start, min(end, cut)) for start, end in places if start < cut])


def _masked(text: str, places: list[tuple[int, int]]) -> str:
    """Return a text with a mask for each place; places that touch or overlap get one."""
    if not places:
        return text
    shown: list[str] = []
    at = 0
    for start, end in places:
        if start > at or not shown:
            shown += (text[at:start], MASK)
        at = max(at, end)
    return "".join((*shown, text[at:]))


def _overlap(window: str, start: int, form: str, least: int) -> int:
    """The length of the longest end of the window, from `start`, that begins the form; 0 unless above `least`."""
    head = form[:_SHORTEST]
    at = window.find(head, start)
    while at >= 0:
        if len(window) - at <= least:
            return 0
        if form.startswith(window[at:]):
            return len(window) - at
        at = window.find(head, at + 1)
    for length in range(min(_SHORTEST - 1, len(window) - start), least, -1):
        if form.startswith(window[-length:]):
            return length
    return 0


def _forms(value: str) -> Iterator[str]:
    """What of a value is masked."""
    for whole in {value, value.strip()}:
        if len(whole) >= _SHORTEST:
            for piece in _pieces(whole):
                yield from _encoded(piece)
            yield from _base64_lines(whole)
    parts = [part for part in dict.fromkeys(_parts(value)) if len(part) >= _SHORTEST_PART][:_PARTS]
    for number, part in enumerate(parts):
        for piece in _pieces(part):
            yield piece
            if number < _ENCODED_PART:
                yield from _encoded(piece)
        if number < _ENCODED_PART:
            yield from _base64_lines(part)


def _base64_lines(text: str) -> Iterator[str]:
    """The lines of the Base64 of a text that is longer than one."""
    raw = text.encode("utf-8", "replace")
    for size in _BASE64_LINES:
        for at in range(0, len(raw), size) if len(raw) > size else ():
            line = raw[at : at + size]
            digits = base64.b64encode(line).decode()[: len(line) * 8 // 6]
            if len(digits) >= _SHORTEST_PART:
                yield digits


def _pieces(text: str) -> Iterator[str]:
    """Split a long text into pieces of equal length; the last two overlap."""
    yield from (text[at : at + _PIECE] for at in range(0, len(text) - _PIECE, _PIECE))
    yield text[-_PIECE:]


def _alternatives(forms: list[str]) -> str:
    """A regular expression of literals. Grouped by their first two characters, thousands are as fast as a few."""
    heads: dict[str, dict[str, list[str]]] = {}
    for form in forms:
        heads.setdefault(form[0], {}).setdefault(form[1], []).append(re.escape(form[2:]))
    groups = (
        re.escape(first)
        + "(?:"
        + "|".join(f"{re.escape(second)}(?:{'|'.join(rest)})" for second, rest in below.items())
        + ")"
        for first, below in heads.items()
    )
    return "|".join(groups)


def _parts(value: str) -> Iterator[str]:
    if len(lines := value.split("\n")) > 1:
        yield from (line.strip() for line in lines)
    yield from _texts(_parsed(value), _DEPTH)


def _parsed(value: str) -> Any:
    try:
        return json.loads(value) if value.lstrip()[:1] in ("{", "[") else None
    except (ValueError, RecursionError):
        return None


def _texts(data: Any, depth: int) -> Iterator[str]:
    if isinstance(data, str):
        yield data
        yield from (line.strip() for line in data.split("\n"))
    elif isinstance(data, dict | list) and depth:
        entries: Iterable[Any] = data.values() if isinstance(data, dict) else data  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        for entry in entries:
            yield from _texts(entry, depth - 1)


def _encoded(text: str) -> Iterator[str]:
    yield text
    raw = text.encode("utf-8", "replace")
    for quoted in {quote(text, safe=""), quote(text), quote_plus(text)}:
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), quoted)
    once = json.dumps(text)[1:-1]
    yield once
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield json.dumps(once)[1:-1]
    yield once.replace("/", "\\/")
    yield repr(text)[1:-1]
    yield repr(raw)[2:-1]
    yield raw.hex()
    yield raw.hex().upper()
    # In the Base64 of a longer text, a value begins at one of three places within a group of bytes. Only the digits
    # that do not depend on its neighbours are masked.
    for before in range(3):
        head, tail = (before * 8 + 5) // 6, (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            digits = encode(b"\0" * before + raw).decode()[head:tail]
            if len(digits) >= _SHORTEST:
                yield digits
