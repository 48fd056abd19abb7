"""A project can forbid formats whose loading can run code, for saving and loading."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sdk_sample_types import Config, Plain, Special

from penstock import serialize
from penstock.errors import UnloadableError
from penstock.runner.attempt import perform
from penstock.serialize import ForbiddenFormatError, UnsafeFormatError, UnsavableError, formats
from penstock.store import FolderStore


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Plain(3), "Plain that only pickle can store .*a Plain cannot be stored as JSON"),
        ([Plain(3)], "that only pickle can store"),
        (Config(1, more={"x": Plain(1)}), "that only pickle can store"),
        (pd.DataFrame({"x": [1, "a"]}), "only pickle can store .*Parquet cannot store it"),
        (np.array([{1}]), "its items are Python objects"),
        (np.ma.masked_array([1]), "MaskedArray is more than an array"),
    ],
)
def test_values_that_need_pickle_are_rejected_with_a_reason(store: FolderStore, value: Any, says: str) -> None:
    serialize.save(value, Any, store)
    with pytest.raises(
        ForbiddenFormatError, match=f"output 'a' of step 'b' is a .*{says}.*this project forbids.*Return plain data"
    ):
        serialize.save(value, Any, store, where="output 'a' of step 'b'", unsafe=False)
    assert issubclass(ForbiddenFormatError, UnsavableError)


def test_values_that_do_not_need_pickle_are_saved(store: FolderStore) -> None:
    for value in (1, "x", [Config(1)], b"x", pd.DataFrame({"x": [1]}), np.zeros(3), {"a": [b"x"]}):
        assert serialize.save(value, Any, store, unsafe=False) == serialize.save(value, Any, store)


def test_a_pickle_is_not_loaded(store: FolderStore, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    saved = serialize.save(Trap(mark), Any, store)
    for claimed in (saved, {"artifact": saved["artifact"] | {"unsafe": False}}, {"items": [saved]}):
        with pytest.raises(UnsafeFormatError, match="'pickle', whose loading can run code"):
            serialize.load(claimed, Any, store, unsafe=False)
    with pytest.raises(UnsafeFormatError):
        serialize.load({"of": saved, "path": [0]}, Any, store, unsafe=False)
    assert not mark.exists()
    serialize.load(saved, Any, store)
    assert mark.exists()
    assert issubclass(UnsafeFormatError, UnloadableError)


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_an_unsafe_custom_format_is_rejected(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))
    monkeypatch.setattr(formats, "_REGISTERED", {})
    serialize.register(
        Special, "special", save=lambda one, path: path.write_text(one.text), load=lambda _: Special(""), unsafe=True
    )
    saved = serialize.save(Special("a"), Any, store)
    assert saved["artifact"]["unsafe"]
    with pytest.raises(ForbiddenFormatError, match="'special', which was registered as unsafe"):
        serialize.save(Special("a"), Any, store, unsafe=False)
    with pytest.raises(UnsafeFormatError):
        serialize.load(saved, Any, store, unsafe=False)


# --------------------------------------------------------------------------------------------------------- estimators


def data() -> tuple[Any, Any]:
    rows = np.random.default_rng(0).normal(size=(200, 4))
    return rows, (rows[:, 0] + rows[:, 1] > 0).astype(int)


def estimators() -> dict[str, Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    return {
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
        "tree": DecisionTreeClassifier(random_state=0),
        "forest": RandomForestClassifier(5, random_state=0),
        "search": GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [2, 3]}),
    }


@pytest.mark.parametrize("name", ["pipeline", "tree", "forest", "search"])
def test_estimators_are_saved_with_skops_when_pickle_is_forbidden(store: FolderStore, name: str) -> None:
    rows, labels = data()
    model = estimators()[name].fit(rows, labels)
    assert serialize.save(model, Any, store)["artifact"]["format"] == "pickle"
    saved = serialize.save(model, Any, store, unsafe=False)
    assert (saved["artifact"]["format"], saved["artifact"]["unsafe"]) == ("skops", False)
    found = serialize.load(saved, type(model), store, unsafe=False)
    assert found.predict(rows).tolist() == model.predict(rows).tolist()


def test_an_estimator_untrusted_by_skops_is_rejected(store: FolderStore) -> None:
    from sklearn.preprocessing import FunctionTransformer

    with pytest.raises(ForbiddenFormatError, match=r"skops does not trust .*data, which it contains"):
        serialize.save(FunctionTransformer(data), Any, store, unsafe=False)


def test_an_estimator_without_skops_says_what_to_install(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.serialize import estimators as module

    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ForbiddenFormatError, match="pip install skops"):
        serialize.save(estimators()["tree"], Any, store, unsafe=False)


def test_a_forged_tree_is_rejected(store: FolderStore, tmp_path: Path) -> None:
    """A node whose child is far outside makes predicting read memory that is not the tree's."""
    rows, labels = data()
    model = estimators()["tree"].fit(rows, labels)
    saved = serialize.save(model, Any, store, unsafe=False)
    forged = tmp_path / "forged"
    with zipfile.ZipFile(store.path(saved["artifact"]["sha256"])) as old, zipfile.ZipFile(forged, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".npy"):
                (tmp_path / "one.npy").write_bytes(content)
                array = np.load(tmp_path / "one.npy")
                if array.dtype.names and "left_child" in array.dtype.names:
                    array["left_child"][0] = 1_000_000
                    np.save(tmp_path / "one.npy", array)
                    content = (tmp_path / "one.npy").read_bytes()
            new.writestr(name, content)
    sha256, size = store.put_file(forged)
    with pytest.raises(UnloadableError, match="its nodes refer to nodes that do not exist"):
        serialize.load({"artifact": {"sha256": sha256, "size": size, "format": "skops"}}, Any, store)


# ----------------------------------------------------------------------------------------------------------- attempts


def attempt(function: str, store: FolderStore, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    request = {
        "run_id": "r", "key": "split", "attempt": 1, "pipeline": "p", "project": "q", "resources": {"memory": None},
        "entrypoint": f"sdk_sample_types:{function}", "inputs": inputs or {},
    }  # fmt: skip
    return json.loads(json.dumps(perform(request, str(store.root), str(store.root / "events"), **more)[0]))


def test_an_attempt_saving_a_forbidden_format_fails_with_step_and_output(store: FolderStore) -> None:
    end = attempt("gives_plain", store, unsafe=False)
    assert end["outcome"] == "failed"
    assert end["error"]["type"] == "ForbiddenFormatError"
    assert end["error"]["message"].startswith("output 'result' of step 'split' is a Plain that only pickle can store")
    saved = attempt("gives_plain", store)["outputs"]["result"]
    end = attempt("takes", store, {"value": saved}, unsafe=False)
    assert end["error"]["type"] == "UnsafeFormatError"
    assert end["error"]["message"].startswith("input 'value' of step 'split' was saved in the format 'pickle'")
