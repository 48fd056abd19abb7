"""Images and figures: a thumbnail. Huge images are refused by their header, before a pixel is decoded."""

from __future__ import annotations

import base64
import io
from typing import Any

import PIL.Image

from penstock_artifacts.previews.readers import NoPreviewError

_FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")
_EDGE = 320
_PIXELS = 64_000_000
_BYTES = 200 * 1024

PIL.Image.preinit()  # lazy imports happen now, while files are accessible
PIL.Image.MAX_IMAGE_PIXELS = None  # the limit is the one below


def image(file: io.BufferedReader, size: int) -> dict[str, Any]:
    """The thumbnail of an image.

    Raises:
        NoPreviewError: it is too large, or of an unsupported kind.
    """
    del size
    try:
        found = PIL.Image.open(file, formats=_FORMATS)
    except PIL.UnidentifiedImageError as error:
        raise NoPreviewError("it is damaged, or an image of an unsupported kind") from error
    width, height = found.size
    if width * height > _PIXELS:
        raise NoPreviewError(f"the image has {width} x {height} pixels (the limit is {_PIXELS // 1_000_000} million)")
    facts: dict[str, str | int] = {"width": width, "height": height, "mode": found.mode, "format": found.format or ""}
    found.draft("RGB", (2 * _EDGE, 2 * _EDGE))  # a JPEG is then decoded no larger than needed
    found.load()
    clear = found.mode in ("RGBA", "LA", "PA") or "transparency" in found.info
    if found.mode in ("I", "F") or found.mode.startswith("I;16"):
        found = _spread(found)
    small = found.convert("RGBA" if clear else "RGB")
    small.thumbnail((_EDGE, _EDGE))
    data, kind = _encoded(small, "PNG"), "image/png"
    if len(data) > _BYTES:
        data, kind = _encoded(small.convert("RGB"), "JPEG"), "image/jpeg"
    picture = {"media_type": kind, "base64": base64.b64encode(data).decode()}
    return {"kind": "image", "facts": facts, "picture": picture | {"width": small.width, "height": small.height}}


def _spread(found: PIL.Image.Image) -> PIL.Image.Image:
    """Scale numbers of any range to shades of grey."""
    wide = found.convert("F")
    low, high = wide.getextrema()
    factor = 255.0 / (high - low) if high > low else 0.0  # type: ignore[operator]
    return wide.point(lambda one: one * factor - low * factor).convert("L")  # type: ignore[operator]


def _encoded(picture: PIL.Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form)
    return buffer.getvalue()
