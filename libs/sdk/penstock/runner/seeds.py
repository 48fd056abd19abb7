"""Random number generators after a fork: each attempt starts as a new process would.

Forked children share their parent's generators. Where the user's module seeded a generator while it was imported, each
attempt must start from that seed, as it would in its own interpreter; all others need fresh entropy, those that the
module has made (`random.Random()`, `numpy.random.default_rng()`, `RandomState()`, `SeedSequence()`), too.
"""

from __future__ import annotations

import gc
import random
import secrets
import sys
import weakref
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from penstock.step_context import seeding

_state: Any = None
_original = random.seed
_original_randbits = secrets.randbits
_drawn: dict[int, None] | None = None
"""Numbers that `secrets` gave while modules are imported: the entropy of NumPy's generators is among them."""

_unseeded: weakref.WeakKeyDictionary[random.Random, None] = weakref.WeakKeyDictionary()
_sequences: list[Any] = []
_bit_generators: list[Any] = []
_entropies: dict[int, int] = {}
"""Number of each entropy, in the order of use."""


@contextmanager
def watch_seeding() -> Generator[None]:
    """Record which generators are made and seeded in this block."""
    global _drawn
    random.seed = _seed_and_record
    # NumPy takes the function from the module when it is imported, which is in such a block.
    secrets.randbits = _draw_and_record
    methods = {name: getattr(random.Random, name) for name in ("seed", "setstate")}
    for name, method in methods.items():
        setattr(random.Random, name, _watched(name, method))
    _drawn = {}
    try:
        yield
    finally:
        random.seed = _original
        secrets.randbits = _original_randbits
        for name, method in methods.items():
            setattr(random.Random, name, method)
        drawn, _drawn = _drawn, None
        if drawn:
            _find_numpy_generators(drawn)
        if _state is not None:
            _keep()


def watch_imports(module: str) -> AbstractContextManager[None]:
    """Watch the import of a module, unless it is imported already."""
    return nullcontext() if module in sys.modules else watch_seeding()


def refresh(seed: int | None = None) -> None:
    """Restore generators that were seeded, and reseed those that were not: with entropy, or from `seed`."""
    if seed is not None:
        seeding.seed_libraries(seed)
    else:
        if _state is not None:  # Python itself reseeds `random` in each child
            random.setstate(_state)
        numpy = sys.modules.get("numpy.random")
        if numpy is not None and _seeded_by_itself(numpy):
            numpy.seed()
    if _unseeded:
        for number, generator in enumerate(list(_unseeded)):
            generator.seed(None if seed is None else f"{seed} {number}")
    if _entropies:
        _refresh_numpy(seed)


def _refresh_numpy(seed: int | None) -> None:
    fresh = {
        entropy: _original_randbits(128) if seed is None else [seed, number] for entropy, number in _entropies.items()
    }
    for one, entropy, spawned in _sequences:
        own = {"spawn_key": one.spawn_key, "pool_size": one.pool_size, "n_children_spawned": spawned}
        one.__init__(fresh[entropy], **own)
    for one in _bit_generators:
        one.__init__(one.seed_seq)


def _watched(name: str, method: Callable[..., None]) -> Callable[..., None]:
    def call(self: random.Random, *args: Any, **kwargs: Any) -> None:
        method(self, *args, **kwargs)
        given = args[0] if args else kwargs.get("a")
        if name == "seed" and given is None:
            _unseeded[self] = None
        else:
            _unseeded.pop(self, None)

    return call


def _draw_and_record(bits: int) -> int:
    number = _original_randbits(bits)
    if _drawn is not None:
        _drawn[number] = None
    return number


def _find_numpy_generators(drawn: dict[int, None]) -> None:
    """Find the new generators whose entropy is among the numbers `drawn`: those that nobody has seeded."""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is None:
        return
    globals_own = getattr(getattr(numpy.mtrand, "_rand", None), "_bit_generator", None)
    objects = gc.get_objects()
    found = [one for one in objects if type(one) is numpy.SeedSequence and _entropy(one) in drawn]
    made = [one for one in objects if issubclass(type(one), numpy.BitGenerator) and one is not globals_own]
    used = {_entropy(one) for one in found}
    for number in drawn:
        if number in used:
            _entropies[number] = len(_entropies)
    _sequences.extend((one, _entropy(one), one.n_children_spawned) for one in found)
    _bit_generators.extend(one for one in made if _entropy(getattr(one, "seed_seq", None)) in used)


def _entropy(sequence: Any) -> Any:
    entropy = getattr(sequence, "entropy", None)
    return entropy if isinstance(entropy, int) else None


def _seed_and_record(a: Any = None, version: int = 2) -> None:
    _original(a, version)
    if a is not None:
        _keep()


def _keep() -> None:
    global _state
    _state = random.getstate()


def _seeded_by_itself(numpy: Any) -> bool:
    """Whether numpy's global generator still has its initial entropy: `seed(n)` removes its `seed_seq`."""
    try:
        return numpy.mtrand._rand._bit_generator.seed_seq is not None
    except AttributeError:
        return False
