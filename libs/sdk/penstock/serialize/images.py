"""Figures and images: matplotlib as PNG, plotly as its own JSON, Pillow as PNG or, where PNG is lossy, TIFF."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, cast

from penstock.serialize.formats import FormatNotApplicableError


def write_figure(value: Any, path: Path) -> None:
    """Draw a matplotlib figure."""
    value.savefig(path, format="png")


def read_figure(path: Path) -> Any:
    """Read a figure that shows the image: the drawing itself is not stored."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    picture: Any = imread(path)
    figure = Figure(figsize=(picture.shape[1] / 100, picture.shape[0] / 100), dpi=100)
    figure.figimage(picture)
    return figure


def write_plotly(value: Any, path: Path) -> None:
    """Write a plotly figure with its data."""
    path.write_text(value.to_json(), encoding="utf-8")


def read_plotly(path: Path) -> Any:
    """Read a plotly figure."""
    import plotly.io

    return plotly.io.from_json(json.dumps(_arrays(json.loads(path.read_bytes()))))


def _arrays(tree: Any) -> Any:
    """Arrays as lists: plotly writes them as base64, but readers of the figure's data expect numbers."""
    if isinstance(tree, list):
        return [_arrays(entry) for entry in cast("list[Any]", tree)]
    if not isinstance(tree, dict):
        return tree
    entries = cast("dict[str, Any]", tree)
    if "bdata" not in entries or "dtype" not in entries:
        return {key: _arrays(entry) for key, entry in entries.items()}
    import numpy as np  # present where an array was written

    array = np.frombuffer(base64.b64decode(entries["bdata"]), entries["dtype"])
    shape = [int(one) for one in str(entries.get("shape", array.size)).split(",")]
    return array.reshape(shape).tolist()


def write_png(value: Any, path: Path) -> None:
    """Write an image as PNG, with its colour profile and EXIF data.

    Raises:
        FormatNotApplicableError: PNG does not preserve its pixels.
    """
    _write(value, path, "PNG")


def write_tiff(value: Any, path: Path) -> None:
    """Write an image as TIFF: floating-point, 32-bit, CMYK and others.

    Raises:
        FormatNotApplicableError: TIFF does not preserve its pixels.
    """
    _write(value, path, "TIFF")


def read_image(path: Path) -> Any:
    """An image whose pixels are in memory."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()
        return image


def _write(value: Any, path: Path, form: str) -> None:
    from PIL import Image

    try:
        with path.open("wb") as file:
            kept = {"icc_profile": value.info.get("icc_profile"), "exif": value.getexif().tobytes() or None}
            value.save(file, form, **{name: one for name, one in kept.items() if one})
        found = read_image(path)
        same = found.mode == value.mode and found.size == value.size and found.tobytes() == value.tobytes()
    except (ValueError, KeyError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatNotApplicableError(f"{form} cannot store an image of mode {value.mode}: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise  # the disk is full, and so on; Pillow's own are without a number
        raise FormatNotApplicableError(f"{form} cannot store an image of mode {value.mode}: {error}") from error
    if not same:
        raise FormatNotApplicableError(f"{form} does not preserve the pixels of an image of mode {value.mode}")
