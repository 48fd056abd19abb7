"""Tracebacks without the platform's own frames, and the user's file and line."""

from __future__ import annotations

import dis
import importlib
import inspect
import os.path
import sys
import sysconfig
import traceback
from types import FrameType

_OURS = frozenset({"penstock", "penstock_core"})
# Where our packages lie, so that frames are distinguished by file name, which is all that tracebacks have.
_FOLDERS = tuple(
    os.path.dirname(os.path.abspath(str(sys.modules[name].__file__))) + os.sep  # noqa: PTH100, PTH120 - no pathlib: import time
    for name in _OURS
    if name in sys.modules and sys.modules[name].__file__
)
_LIBRARIES = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "purelib", "platlib"))
_MACHINERY = ("<frozen importlib", "<frozen runpy", str(importlib.__file__))


def caller() -> tuple[str | None, int | None]:
    """Return file and line of the innermost frame of user code."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in _OURS:
        frame = frame.f_back
    first = frame
    while frame is not None and is_library(frame.f_code.co_filename):  # a decorator of a library, say
        frame = frame.f_back
    frame = frame or first
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else (None, None)


def called_by_user() -> bool:
    """Whether the function that calls this one was called by user code itself, not by a library or the platform.

    Built-in functions have no frames: `repr([x])` in the user's code calls `x.__repr__` for the user.
    """
    frame = inspect.currentframe()
    frame = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    while frame is not None and frame.f_code.co_filename == "<frozen abc>":
        frame = frame.f_back
    return frame is not None and not frame.f_code.co_filename.startswith((*_FOLDERS, *_LIBRARIES, "<frozen "))


def user_frame() -> FrameType | None:
    """The innermost frame outside of the platform, if it is the user's."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_FOLDERS):
        frame = frame.f_back
    return None if frame is None or is_library(frame.f_code.co_filename) else frame


def operation() -> str:
    """The bytecode operation in which user code calls the function that calls this one; empty if it does not."""
    frame = inspect.currentframe()
    frame = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    if frame is None or frame.f_lasti < 0 or frame.f_code.co_filename.startswith(_FOLDERS):
        return ""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]


def is_platform(filename: str) -> bool:
    """Whether code in `filename` belongs to the platform or to the import machinery."""
    return filename.startswith(_FOLDERS) or filename.startswith(_MACHINERY)


def is_library(filename: str) -> bool:
    """Whether code in `filename` is part of Python or of an installed package."""
    return filename.startswith((*_LIBRARIES, "<frozen "))


def where(error: BaseException) -> tuple[str | None, int | None]:
    """File and line of the user's code in which `error` was raised, innermost first; a syntax error has its own."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    outside = [one for one in frames if not is_platform(one[0])]
    own = [one for one in outside if not is_library(one[0])]
    return (own or outside or [(None, None)])[-1]


def user_traceback(error: BaseException, limit: int = 20_000) -> str:
    """The traceback of `error` and of what caused it, without platform frames, of at most `limit` characters."""
    shown = traceback.TracebackException.from_exception(error, compact=True)
    _strip(shown)
    text = "".join(shown.format()).rstrip()
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n  [... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
    return text


def _strip(shown: traceback.TracebackException) -> None:
    waiting = [shown]
    while waiting:
        one = waiting.pop()
        one.stack = traceback.StackSummary.from_list([f for f in one.stack if not is_platform(f.filename)])
        waiting.extend(e for e in (one.__cause__, one.__context__, *(one.exceptions or ())) if e is not None)
