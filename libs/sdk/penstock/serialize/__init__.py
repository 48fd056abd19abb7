"""Saves and loads what steps take and give: small data inline as JSON, everything else as an artifact.

    value = save(table, pd.DataFrame, store)             # {"artifact": {"sha256": …, "format": "parquet", …}}
    table = load(value, pd.DataFrame, store)

The value decides the format: JSON data and data classes travel inline up to 64 KiB (`penstock.codec` keeps their
types), larger ones as `json`; `text`, `bytes`, `file` and `folder` (for a `Path`), `parquet` (pandas), `npy` (numpy),
`png` (matplotlib); all others are pickled, and marked unsafe. Lists and dictionaries that hold tables, arrays, paths
or bytes are saved item by item. The hint says what the reader expects, and is checked on both sides.

A format of your own takes three lines:

    from penstock import serialize
    serialize.register(Image, "jpeg", save=lambda image, path: image.save(path, "jpeg"), load=Image.open,
                       media_type="image/jpeg")
"""

from penstock.errors import ForbiddenFormatError, UnloadableError, UnsafeFormatError, UnsavableError
from penstock.serialize.folders import parts
from penstock.serialize.formats import Format, register
from penstock.serialize.loader import load
from penstock.serialize.saver import save

__all__ = [
    "ForbiddenFormatError",
    "Format",
    "UnloadableError",
    "UnsafeFormatError",
    "UnsavableError",
    "load",
    "parts",
    "register",
    "save",
]
