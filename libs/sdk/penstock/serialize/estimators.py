"""scikit-learn estimators without pickle, by skops: for projects that forbid formats whose loading can run code.

skops rebuilds objects of types that it trusts and of nothing else. It does not trust scikit-learn's trees, since a
forged one makes predictions read memory that is not its own; here they are trusted and their nodes are checked.
"""

# pyright: reportMissingImports=false
# skops is the user's.

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from penstock.serialize.formats import FormatNotApplicableError

_TREE = "sklearn.tree._tree.Tree"
_TRUSTED = frozenset(
    {
        _TREE,
        "sklearn.metrics._scorer._PassthroughScorer",
        "sklearn.metrics._scorer._Scorer",
        "sklearn.model_selection._split.KFold",
        "sklearn.model_selection._split.StratifiedKFold",
    }
)
"""Types of scikit-learn that skops leaves to its users to trust: building one runs nothing but its constructor."""

_LEAF = -1


def write(value: Any, path: Path) -> None:
    """Write an estimator.

    Raises:
        FormatNotApplicableError: skops is not there, or something in the estimator is of a type that it does not trust.
    """
    if importlib.util.find_spec("skops") is None:
        raise FormatNotApplicableError("skops could store it without pickle, but is not installed: pip install skops")
    import skops.io

    try:
        skops.io.dump(value, path)
    except OSError:
        raise
    except Exception as error:
        raise FormatNotApplicableError(f"skops cannot store it: {error}") from error
    strange = sorted(set(skops.io.get_untrusted_types(file=path)) - _TRUSTED)
    if strange:
        raise FormatNotApplicableError(f"skops does not trust {', '.join(strange[:5])}, which it contains")


def read(path: Path) -> Any:
    """Read an estimator.

    Raises:
        ValueError: the file holds types that are not trusted, or a tree that leads out of itself.
    """
    import skops.io

    found = skops.io.get_untrusted_types(file=path)
    loaded = skops.io.load(path, trusted=sorted(_TRUSTED.intersection(found)))
    for tree in _trees(loaded) if _TREE in found else ():
        _check(tree)
    return loaded


def _trees(root: Any) -> Iterator[Any]:
    """All trees below an object, however deep."""
    waiting: list[Any] = [root]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if type(one).__qualname__ == "Tree" and type(one).__module__ == "sklearn.tree._tree":
            yield one
        elif isinstance(one, dict):
            waiting += cast("dict[Any, Any]", one).values()
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += cast("list[Any]", one)
        elif isinstance(one, np.ndarray):
            waiting += one.ravel().tolist() if one.dtype.hasobject else []
        elif hasattr(one, "__dict__"):
            waiting += vars(one).values()


def _check(tree: Any) -> None:
    """Children must be later nodes of the same tree, and features must be there: else predicting reads elsewhere."""
    left, right, feature = tree.children_left, tree.children_right, tree.feature
    places = np.arange(tree.node_count)
    inner = left != _LEAF
    sound = all(
        bool(np.all((side[inner] > places[inner]) & (side[inner] < tree.node_count))) for side in (left, right)
    ) and bool(np.all((feature[inner] >= 0) & (feature[inner] < tree.n_features)))
    if not sound:
        raise ValueError("a tree in it is damaged: its nodes refer to nodes that do not exist")
