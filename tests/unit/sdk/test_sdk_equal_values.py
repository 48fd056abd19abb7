"""A step reads the value that another step returned: of the same type, with the same content, or neither runs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sdk_value_strategies as strategies
from hypothesis import HealthCheck, given, seed, settings

from penstock import pipeline, serialize, step
from penstock.serialize import UnsavableError
from penstock.store import FolderStore

many = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


def through_the_store(value: Any, store: FolderStore) -> Any:
    """What the next step reads: saved and loaded by what the runner calls; references are JSON."""
    return serialize.load(json.loads(json.dumps(serialize.save(value, Any, store), allow_nan=False)), Any, store)


@many
@given(strategies.nested)
def test_data_is_read_as_it_was(store: FolderStore, value: Any) -> None:
    assert strategies.same(through_the_store(value, store), value)


@many
@given(strategies.tables | strategies.arrays())
def test_tables_and_arrays_are_read_as_they_were(store: FolderStore, value: Any) -> None:
    assert strategies.same(through_the_store(value, store), value)


@step
def hand_on(value: Any) -> Any:
    return value


@settings(many, max_examples=60)
@given(strategies.values)
def test_a_local_run_hands_on_the_same_value(value: Any) -> None:
    @step
    def produce() -> Any:
        return value

    @pipeline
    def handing() -> Any:
        return hand_on(produce())

    assert strategies.same(handing.local(), value)


def test_another_process_reads_the_same_values(store: FolderStore, tmp_path: Path) -> None:
    examples: list[Any] = []

    @seed(7)
    @settings(many, max_examples=60, database=None)
    @given(strategies.values)
    def collect(value: Any) -> None:
        examples.append((value, serialize.save(value, Any, store)))

    collect()
    (tmp_path / "examples").write_bytes(pickle.dumps(examples))
    code = (
        "import pickle, sys, sdk_value_strategies as s\n"
        "from pathlib import Path\nfrom typing import Any\nfrom penstock import serialize\n"
        "from penstock.store import FolderStore\n"
        "store = FolderStore(Path(sys.argv[1]))\n"
        "for value, saved in pickle.loads(Path(sys.argv[2]).read_bytes()):\n"
        "    found = serialize.load(saved, Any, store)\n"
        "    assert s.same(found, value), (found, value, saved)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, store.root, tmp_path / "examples"],
        check=True,
        timeout=120,
        cwd=Path(__file__).parent,
    )


@pytest.mark.parametrize("levels", [100, 151, 240, 400, 2000])
def test_nested_data_is_read_back_or_refused_at_once(store: FolderStore, levels: int) -> None:
    deep: Any = {"leaf": 1}
    for _ in range(levels):
        deep = {"left": [deep], "right": None}
    try:
        found = through_the_store(deep, store)
    except UnsavableError as error:
        assert "nested too deeply" in str(error)
        return
    depth = 0
    while isinstance(found, dict) and "left" in found:
        found, depth = found["left"][0], depth + 1
    assert (depth, found) == (levels, {"leaf": 1})
