"""The layout of an artifact folder, which the platform's store and a step's process use at the same time.

    ROOT/sha256/<first two digits>/<64 digits>   an object, complete and durable
    ROOT/damaged/<64 digits>                     an object whose bytes were found to have another digest, set aside
    ROOT/tmp/                                    files that are being written; renamed to become objects
    ROOT/lock                                    flock: shared while an object is renamed or its time is renewed,
                                                 exclusive while the garbage collection removes one

Both sides do their own I/O: the platform streams through asyncio, a step's process uses plain blocking files and must
import nothing but the core.
"""

from __future__ import annotations

from penstock_core import ids

OBJECTS = "sha256"
TEMPORARY = "tmp"
DAMAGED = "damaged"
LOCK = "lock"


def object_name(sha256: str) -> str:
    """The path of an object below the root.

    Raises:
        InvalidIdError: `sha256` is no digest, so that no name can lead out of the folder.
    """
    ids.check_digest(sha256)
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"
