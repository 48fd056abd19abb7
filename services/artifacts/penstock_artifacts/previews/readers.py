"""Chooses the reader of an artifact: by its format, media type, file name, or first bytes."""

from __future__ import annotations

import mimetypes
from typing import NamedTuple

from penstock_core.artifacts import folders


class NoPreviewError(Exception):
    """There is no preview, for the reason in the message. `final`: trying again gives the same."""

    def __init__(self, reason: str, *, final: bool = True) -> None:
        self.final = final
        super().__init__(reason)


class Choice(NamedTuple):
    """A function of a module of this package, and its lazy imports, which happen while files are accessible."""

    module: str
    function: str
    needs: tuple[str, ...] = ()


UNSAFE = frozenset({"pickle"})
PICKLE = "it is a pickle: loading it could run code, so it is never opened"

_NUMPY = ("numpy", "numpy.lib.format")
_ARROW = ("pyarrow", "pyarrow.parquet", "pyarrow.compute")
# File names in a zip may be in this encoding.
_ZIP = ("encodings.cp437",)

_IMAGE = Choice("pictures", "image", ("PIL.Image", "PIL.TiffImagePlugin", "PIL.WebPImagePlugin"))

_BY_FORMAT = {
    "parquet": Choice("tables", "parquet", _ARROW),
    "json": Choice("texts", "json"),
    "jsonl": Choice("texts", "lines"),
    "plotly": Choice("texts", "plotly"),
    "text": Choice("texts", "plain"),
    "markdown": Choice("texts", "markdown"),
    "html": Choice("texts", "html"),
    "png": _IMAGE,
    "image": _IMAGE,
    "tiff": _IMAGE,
    "npy": Choice("tables", "array", _NUMPY),
    "npz": Choice("contents", "arrays", (*_NUMPY, *_ZIP)),
    "safetensors": Choice("contents", "tensors"),
    "skops": Choice("contents", "estimator", _ZIP),
    "folder": Choice("contents", "folder"),
}
_ARCHIVE = Choice("contents", "archive", _ZIP)
_SEPARATED = Choice("tables", "separated", ("encodings.utf_8_sig",))
_BY_MEDIA_TYPE = {
    "application/vnd.apache.parquet": _BY_FORMAT["parquet"],
    "application/json": _BY_FORMAT["json"],
    "application/jsonl": _BY_FORMAT["jsonl"],
    "application/x-ndjson": _BY_FORMAT["jsonl"],
    "application/vnd.plotly.v1+json": _BY_FORMAT["plotly"],
    "application/x-npy": _BY_FORMAT["npy"],
    "application/x-tar": _BY_FORMAT["folder"],
    folders.MEDIA_TYPE: _BY_FORMAT["folder"],
    "application/zip": _ARCHIVE,
    "text/csv": _SEPARATED,
    "text/tab-separated-values": _SEPARATED,
    "text/markdown": _BY_FORMAT["markdown"],
    "text/html": _BY_FORMAT["html"],
    "application/xhtml+xml": _BY_FORMAT["html"],
    "image/svg+xml": _BY_FORMAT["html"],
    "application/xml": _BY_FORMAT["text"],
    "application/toml": _BY_FORMAT["text"],
    "application/yaml": _BY_FORMAT["text"],
}
_ENDINGS = {
    ".parquet": "application/vnd.apache.parquet", ".jsonl": "application/jsonl", ".ndjson": "application/jsonl",
    ".npy": "application/x-npy", ".md": "text/markdown", ".log": "text/plain", ".py": "text/plain",
    ".yaml": "application/yaml", ".yml": "application/yaml", ".toml": "application/toml",
}  # fmt: skip
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "parquet"),
    (b"\x93NUMPY", "npy"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"II*\x00", "image"),
    (b"MM\x00*", "image"),
)


def choose(form: str, media_type: str, filename: str, head: bytes) -> Choice:
    """Choose the reader of an artifact.

    Args:
        form: its format; empty where unknown.
        media_type: its media type; empty where unknown.
        filename: the name that the file had.
        head: its first 512 bytes.

    Raises:
        NoPreviewError: the kind of file is unknown, or a pickle.
    """
    if form in _BY_FORMAT:
        return _BY_FORMAT[form]
    kind = media_type.partition(";")[0].strip().lower()
    if kind in ("", "application/octet-stream") and filename:
        ending = "." + filename.rpartition(".")[2].lower()
        kind = _ENDINGS.get(ending) or mimetypes.guess_type(filename)[0] or kind
    if kind in _BY_MEDIA_TYPE:
        return _BY_MEDIA_TYPE[kind]
    if kind.startswith("image/"):
        return _BY_FORMAT["image"]
    if kind.startswith("text/"):
        return _BY_FORMAT["text"]
    return _by_beginning(kind, head)


def _by_beginning(kind: str, head: bytes) -> Choice:
    # Pickles of protocols 2 to 5 begin like this, and little else does.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise NoPreviewError(PICKLE)
    for beginning, form in _BEGINNINGS:
        if head.startswith(beginning):
            return _BY_FORMAT[form]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _BY_FORMAT["image"]
    if head[:4] == b"PK\x03\x04":
        return _ARCHIVE
    if head[257:262] == b"ustar":
        return _BY_FORMAT["folder"]
    if kind not in ("", "application/octet-stream"):
        raise NoPreviewError(f"there is no preview for {kind}")
    start = head.lstrip()
    if b"\0" in head or not start:
        return Choice("texts", "hexadecimal")
    return _BY_FORMAT["json" if start[:1] in (b"{", b"[") else "text"]
