"""Results that are parts of others, or the results of all items of a mapped step, are read like any other result."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import serialize
from penstock.client.artifacts.result_reader import ResultReader
from penstock.client.views import Run, Step
from penstock.store import FolderStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return FolderStore(tmp_path / "artifacts")


def reader(store: FolderStore) -> ResultReader:
    transport: Any = SimpleNamespace(locate=lambda: SimpleNamespace(pid=1))
    return ResultReader(transport, store.root.parent)


def run(outputs: dict[str, Any], **steps: dict[str, Any]) -> Run:
    made = {key.replace("_", "[") + "]": Step(key=key, state="succeeded", outputs=one) for key, one in steps.items()}
    return Run("r", "p", "succeeded", outputs=outputs, steps=made)


def test_the_results_of_a_mapped_step(store: FolderStore) -> None:
    found = run(
        {"result": {"collected": {"key": "train", "count": 3, "output": "result"}}},
        train_0={"result": {"value": 1}},
        train_2={"result": serialize.save("x" * 70_000, str, store)},
    )
    assert reader(store).load(found, None, "result") == [1, None, "x" * 70_000]


def test_the_results_of_more_items_than_the_view_of_a_run_has(store: FolderStore) -> None:
    found = run({"result": {"collected": {"key": "train", "count": 1203, "output": "result"}}}, train_0={})
    counts = {"count": 1203, "finished": 1202, "succeeded": 1201, "failed": 1}
    found.steps["train"] = Step(key="train", state="succeeded", items=counts)

    def items(method: str, path: str, *, query: dict[str, Any]) -> Any:
        assert (method, path, query["step"]) == ("GET", "/v1/runs/r/items", "train")
        indexes = [n for n in range(1202) if n > query["after"]][: query["limit"]]
        page: dict[str, Any] = {f"train[{n}]": {"outputs": {"result": {"value": n}}} for n in indexes if n != 7}
        page |= {"train[7]": {"outputs": {}}} if 7 in indexes else {}
        page = {key: {"state": "succeeded", **item} for key, item in page.items()}
        return {"items": page, "next": indexes[-1] if indexes[-1] < 1201 else None}

    transport: Any = SimpleNamespace(locate=lambda: SimpleNamespace(pid=1), json=items)
    values = ResultReader(transport, store.root.parent).load(found, None, "result")
    assert values == [None if n in (7, 1202) else n for n in range(1203)]


def test_an_item_of_a_long_list(store: FolderStore, tmp_path: Path) -> None:
    rows = serialize.save([{"n": n, "text": "x" * 90} for n in range(2000)], Any, store)
    found = run({"result": {"of": rows, "path": [1999]}, "n": {"of": rows, "path": [7, "n"]}})
    assert reader(store).load(found, None, "result")["n"] == 1999
    target = reader(store).download(found, None, "n", tmp_path, None)
    assert json.loads(target.read_text()) == 7
    shown = reader(store).preview(found, None, "n")
    assert (shown.kind, shown.text, shown.language) == ("text", "7", "json")


def test_the_preview_of_an_item_loads_no_pickle(store: FolderStore) -> None:
    found = run({"result": {"of": serialize.save([[1, print]], Any, store), "path": [0]}})
    shown = reader(store).preview(found, None, "result")
    assert (shown.kind, "whose loading can run code" in shown.reason) == ("none", True)
    assert reader(store).load(found, None, "result") == [1, print]


def test_the_items_of_a_dictionary_are_listed(store: FolderStore) -> None:
    found = run({"result": serialize.save({"a": b"xy", "b": 1}, Any, store)})
    shown = reader(store).preview(found, None, "result")
    assert (shown.kind, shown.rows, shown.facts) == ("table", [["builtins:bytes", "bytes", 2]], {"artifacts": 1})
