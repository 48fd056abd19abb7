"""The folder of a session's module: a copy of the working folder's source with the module in it."""

from __future__ import annotations

import atexit
import io
import shutil
import tarfile
import tempfile
from pathlib import Path

from penstock.bundle import Bundle
from penstock.errors import SourceError

MODULE = "interactive_session"
"""Name of the module that has the definitions of a notebook or a session."""

_made: list[Path] = []


def make(packed: Bundle, text: str) -> Path:
    """Make the folder; the one before it is removed.

    Raises:
        SourceError: the working folder has a file of the module's name.
    """
    if f"{MODULE}.py" in packed.files:
        raise SourceError(
            f"{packed.root / MODULE}.py has the name of the module of the session's definitions: rename it"
        )
    if not _made:
        atexit.register(_remove)
    _remove()
    folder = Path(tempfile.mkdtemp(prefix="penstock-session-")).resolve()
    _made.append(folder)
    with tarfile.open(fileobj=io.BytesIO(packed.data)) as tar:
        tar.extractall(folder, filter="data")
    (folder / f"{MODULE}.py").write_text(text, encoding="utf-8")
    return folder


def _remove() -> None:
    while _made:
        shutil.rmtree(_made.pop(), ignore_errors=True)
