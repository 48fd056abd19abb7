"""The values of options: accepted forms, and their conversion for the IR.

Every wrong value is a `DefinitionError` at the user's line.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeAlias

from penstock import hints, tracebacks
from penstock_core import durations, ids
from penstock_core.errors import DefinitionError, InvalidIdError
from penstock_core.pipeline import ir

Duration: TypeAlias = str | float | timedelta
Size: TypeAlias = str | int

_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\Z", re.IGNORECASE)
_CPU = re.compile(r"(\d+(?:\.\d+)?)(m?)\Z")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def definition_error(message: str) -> DefinitionError:
    """Return an error with the line of the user's code."""
    return DefinitionError(message, *tracebacks.caller())


def known(given: Iterable[str], there: Iterable[str], what: str) -> None:
    """Check that all given options exist."""
    names = list(there)
    unknown = next((one for one in given if one not in names), None)
    if unknown is not None:
        close = difflib.get_close_matches(unknown, names, n=1)
        guess = f": did you mean {close[0]!r}?" if close else f" (there are: {', '.join(names)})"
        raise definition_error(f"{what} has no option {unknown!r}{guess}")


def duration(value: Any, what: str, *, zero: bool = False) -> float:
    """Seconds of `"10m"`, `"1h30m"`, `"250ms"`, a number of seconds, or a `timedelta`."""
    seconds: float | None = None
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        with suppress(ValueError):
            seconds = durations.parse_duration(value)
    if seconds is None or not math.isfinite(seconds) or seconds < 0 or (seconds == 0 and not zero):
        raise definition_error(
            f"{what} must be a duration such as '10m', '1h30m', 2.5 (seconds) or a timedelta, not {value!r}"
        )
    return seconds


def memory(value: Any, what: str = "memory") -> int:
    """Bytes of `"2Gi"`, `"512Mi"`, `"1.5G"`, or a whole number of bytes."""
    size = 0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (found := _SIZE.match(value.strip())) and found[2].lower() in _BYTES:
        size = int(float(found[1]) * _BYTES[found[2].lower()])
    if size <= 0:
        raise definition_error(f"{what} must be a size such as '2Gi', '512Mi' or a number of bytes, not {value!r}")
    return size


def _cpu(value: Any) -> float:
    cores = 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        cores = float(value)
    elif isinstance(value, str) and (found := _CPU.match(value.strip())):
        cores = float(found[1]) / (1000 if found[2] else 1)
    if not 0 < cores < math.inf:
        raise definition_error(f"cpu must be a number of cores such as 0.5, 2 or '500m', not {value!r}")
    return cores


class Resources:
    """Resources of one attempt of a step.

    Args:
        cpu: cores, such as 0.5, 2 or `"500m"`.
        memory: bytes, or a size such as `"2Gi"` or `"512Mi"`. An attempt that needs more is ended.
        gpu: whole devices.
        memory_growth: factor, 1 to 100, by which an attempt has more memory than the one before it that needed more.
    """

    __slots__ = ("cpu", "gpu", "memory", "memory_growth")

    def __init__(
        self,
        cpu: float | str | None = None,
        memory: Size | None = None,
        gpu: int = 0,
        *,
        memory_growth: float = 1.0,
    ) -> None:
        self.cpu = None if cpu is None else _cpu(cpu)
        self.memory = None if memory is None else _memory(memory)
        self.gpu = whole(gpu, "gpu", 0, 1024)
        self.memory_growth = number(memory_growth, "memory_growth", 1.0, 100.0)
        if self.memory_growth != 1 and self.memory is None:
            raise definition_error("memory_growth requires memory=…, which it multiplies")

    def __repr__(self) -> str:
        growth = f", memory_growth={self.memory_growth}" if self.memory_growth != 1 else ""
        return f"Resources(cpu={self.cpu}, memory={self.memory}, gpu={self.gpu}{growth})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resources) and self.spec() == other.spec()

    def __hash__(self) -> int:
        return hash(self.spec())

    def spec(self) -> ir.Resources:
        """Return the IR."""
        return ir.Resources(cpu=self.cpu, memory=self.memory, gpu=self.gpu, memory_growth=self.memory_growth)


_memory = memory


class Cache:
    """How results of equal calls are reused.

    Args:
        ttl: how long a result counts, such as `"7d"`; None: for ever.
        salt: part of the cache key; another text invalidates all cached results.
    """

    __slots__ = ("salt", "ttl")

    def __init__(self, ttl: Duration | None = None, salt: str = "") -> None:
        self.ttl = None if ttl is None else duration(ttl, "ttl of Cache")
        self.salt = text(salt, "salt of Cache")

    def __repr__(self) -> str:
        return f"Cache(ttl={self.ttl}, salt={self.salt!r})"


class Batch:
    """How many calls of a step are one call of its function, in the warm workers of low-latency endpoints.

    Args:
        max: the most calls, 1 to 1000.
        wait: how long a request waits for others, such as `"5ms"` or 0.005 seconds.
    """

    __slots__ = ("max", "wait")

    def __init__(self, max: int = 32, wait: Duration = 0) -> None:
        self.max = whole(max, "max of Batch", 1, 1000)
        self.wait = duration(wait, "wait of Batch", zero=True)

    def __repr__(self) -> str:
        return f"Batch(max={self.max}, wait={self.wait})"


def batch(value: Any) -> ir.Batch:
    """`Batch(…)` as a field of `ir.StepSpec`."""
    if not isinstance(value, Batch):
        raise definition_error(f'batch must be Batch(max=32, wait="5ms"), not {value!r}')
    return ir.Batch(max=value.max, wait=value.wait)


def cache(value: Any) -> dict[str, Any]:
    """`True`, `False` or `Cache(…)`, as fields of `ir.StepSpec`."""
    if isinstance(value, Cache):
        return {"cache": True, "cache_ttl": value.ttl, "cache_salt": value.salt}
    if not isinstance(value, bool):
        raise definition_error(f'cache must be True, False or Cache(ttl="7d"), not {value!r}')
    return {"cache": value}


def concurrency(value: Any) -> dict[str, Any]:
    """`"gpu"` or `"gpu:2"`, as fields of `ir.StepSpec`."""
    limit, colon, most = text(value, "concurrency").partition(":")
    if not colon:
        return {"concurrency": name(limit, "concurrency")}
    if not most.isascii() or not most.isdecimal() or not 1 <= int(most) <= 1_000_000:
        raise definition_error(
            f"concurrency must be the name of a limit, such as 'gpu' or 'gpu:2' for two at a time, not {value!r}"
        )
    return {"concurrency": name(limit, "concurrency"), "concurrency_max": int(most)}


def trigger_rule(value: Any) -> ir.Rule:
    """Return which upstream outcomes let a step run."""
    if not isinstance(value, str) or value not in list(ir.Rule):
        raise definition_error(
            f"trigger_rule must be one of {', '.join(repr(one.value) for one in ir.Rule)}, not {value!r}"
        )
    return ir.Rule(value)


def min_success(value: Any) -> int | float | None:
    """How many items of a mapped step must succeed: a number, or a fraction from 0 to 1; None: all."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= ir.MAX_ITEMS:
        return value
    if isinstance(value, float) and 0 <= value <= 1:
        return value if value < 1 else None
    raise definition_error(f"min_success must be a whole number of items, or a fraction from 0.0 to 1.0, not {value!r}")


def whole(value: Any, what: str, low: int, high: int) -> int:
    """A whole number within bounds."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise definition_error(f"{what} must be a whole number from {low} to {high}, not {value!r}")
    return value


def number(value: Any, what: str, low: float, high: float = math.inf) -> float:
    """A finite number within bounds."""
    bad = not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high
    if bad or not math.isfinite(value):
        most = f" and at most {high:g}" if high < math.inf else ""
        raise definition_error(f"{what} must be a number of at least {low:g}{most}, not {value!r}")
    return float(value)


def text(value: Any, what: str) -> str:
    """Return a str."""
    if not isinstance(value, str):
        raise definition_error(f"{what} must be a string, not {hints.short_repr(value)}")
    return value


def flag(value: Any, what: str) -> bool:
    """Return a bool."""
    if not isinstance(value, bool):
        raise definition_error(f"{what} must be True or False, not {hints.short_repr(value)}")
    return value


def name(value: Any, what: str) -> str:
    """A name of letters, digits, `_` and `-`."""
    try:
        return ids.check_name(text(value, what), what)
    except InvalidIdError as error:
        raise definition_error(str(error)) from error


def exceptions(value: Any) -> tuple[str, ...]:
    """Names of exception types: one type or name, or several."""
    several: Iterable[Any] = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    found: list[str] = []
    for one in several:
        if isinstance(one, type) and issubclass(one, BaseException):
            found.append(one.__name__)
        elif isinstance(one, str) and one.rpartition(".")[2].isidentifier():
            found.append(one.rpartition(".")[2])
        else:
            raise definition_error(f"retry_on takes exception types or their names, not {hints.short_repr(one)}")
    return tuple(found)


def texts(value: Any, what: str) -> tuple[str, ...]:
    """A list of names."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) and one for one in value):
        raise definition_error(f"{what} must be a list of names, not {value!r}")
    return tuple(value)


def environment_variables(value: Any) -> dict[str, str]:
    """Environment variables of the attempt's process."""
    if not isinstance(value, Mapping):
        raise definition_error(f"env must be a dictionary of strings, not {value!r}")
    for key, entry in value.items():
        if not isinstance(key, str) or not _ENV_NAME.match(key) or not isinstance(entry, str) or "\0" in entry:
            raise definition_error(f"env must map names of variables to strings, not {key!r} to {entry!r}")
    return dict(value)
