"""What a request for a run says about earlier results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

CacheMode: TypeAlias = Literal["use", "refresh", "off"]


def caching(cache: CacheMode, refresh: Sequence[str]) -> dict[str, Any]:
    """The fields of a request that say what a run does with earlier results; none where it does the usual."""
    return {
        **({"cache": cache} if cache != "use" else {}),
        **({"refresh": list(refresh)} if refresh else {}),
    }
