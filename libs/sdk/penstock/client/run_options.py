"""What a request for a run says about earlier results, and about time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

CacheMode: TypeAlias = Literal["use", "refresh", "off"]


def options(cache: CacheMode, refresh: Sequence[str], deadline: float | None) -> dict[str, Any]:
    """The fields of a request that say more than the usual."""
    return {
        **({"cache": cache} if cache != "use" else {}),
        **({"refresh": list(refresh)} if refresh else {}),
        **({"deadline": deadline} if deadline is not None else {}),
    }


def rerun_fields(version: str | None, inputs: Any, *, resume: bool, from_step: str | None) -> dict[str, Any]:
    """The fields of a request for an earlier run again: of which version, with which changes, or only for its rest."""
    rest = {"resume": True, "from_step": from_step} if resume or from_step else {}
    return {"version": version, "inputs": inputs, **rest}
