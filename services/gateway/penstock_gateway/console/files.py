"""The built files of the console, in memory and compressed."""

from __future__ import annotations

import gzip
import mimetypes
from dataclasses import dataclass
from pathlib import Path

_INDEX = "index.html"
_INSTALLED = Path(__file__).with_name("dist")
"""In a wheel."""

_CHECKOUT = Path(__file__).parents[4] / "services" / "console" / "dist"

_MISSING = (
    b"<!doctype html><meta charset=utf-8><title>Penstock</title><p>The console is not built. In a checkout, build it "
    b"once with <code>make console</code> (it needs Node 20.19 or newer), and reload this page."
)
_COMPRESSIBLE = ("text/", "application/javascript", "application/json", "image/svg+xml")


@dataclass(frozen=True, slots=True)
class File:
    """A file: `compressed` with gzip; empty if that does not help."""

    media_type: str
    content: bytes
    compressed: bytes
    is_page: bool


class ConsoleFiles:
    """Finds files by their path below `/console/`; pages are all the same document, which reads the path itself.

    Args:
        folder: the built console; default: that of the wheel, else that of the checkout.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or (_INSTALLED if _INSTALLED.is_dir() else _CHECKOUT)
        self._files: dict[str, File] = {}

    def page(self) -> File:
        """Return the document of all pages, or one that says how to build the console."""
        return self.get(_INDEX) or File("text/html; charset=utf-8", _MISSING, b"", is_page=True)

    def get(self, name: str) -> File | None:
        """Return a file, or None if there is none. Only files that were built can be named."""
        # The document is read each time: it names other files after the console was built again.
        known = self._files.get(name) if name != _INDEX else None
        if known is None and name in self._names():
            known = self._files[name] = _read(self._folder / name, is_page=name == _INDEX)
        return known

    def _names(self) -> set[str]:
        return {str(path.relative_to(self._folder)) for path in self._folder.rglob("*") if path.is_file()}


def _read(path: Path, *, is_page: bool) -> File:
    content = path.read_bytes()
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    kind = "text/javascript" if kind == "application/javascript" else kind
    compressed = gzip.compress(content, 9, mtime=0) if kind.startswith(_COMPRESSIBLE) else b""
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return File(f"{kind}{charset}", content, compressed if len(compressed) < len(content) else b"", is_page)
