"""Exceptions of the user's code as the fields of a `penstock_core.facts.ErrorInfo`, in JSON form."""

from __future__ import annotations

from typing import Any

from penstock import tracebacks

TRACEBACK_LIMIT = 32 * 1024
MESSAGE_LIMIT = 2000


def describe(error: BaseException) -> dict[str, Any]:
    """Type, bases, a one-line message and the traceback of the user's frames, each bounded and valid Unicode."""
    return {
        "type": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__[1:] if base is not object],
        "message": _message(error),
        "traceback": _traceback(error),
    }


def plain(kind: str, message: str, bases: tuple[str, ...] = (), traceback: str = "") -> dict[str, Any]:
    """An error that is no exception of the user's."""
    return {"type": kind, "bases": list(bases), "message": clean(message[:MESSAGE_LIMIT]), "traceback": traceback}


def clean(text: str) -> str:
    """Text without lone surrogates, which no JSON reader takes."""
    return text.encode("utf-8", "replace").decode()


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be shown: __str__ raised)"
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return clean(first[:MESSAGE_LIMIT])


def _traceback(error: BaseException) -> str:
    try:
        text = clean(tracebacks.user_traceback(error, TRACEBACK_LIMIT - 100))
    except Exception as problem:  # hostile exceptions: attributes that raise, sources that are gone
        return f"(the traceback cannot be shown: {type(problem).__name__})"
    return text if '  File "' in text else ""
