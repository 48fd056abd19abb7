"""The example pipelines, in process: on the data that ships with scikit-learn and on realistic CSV files."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from penstock import context
from penstock.step_context.contexts import Context, MemorySink, use_context

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Steps write into the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example(name: str) -> Iterator[ModuleType]:
    """Both are called `pipeline`, each with its own folder first on the module path."""
    own = ("pipeline", "report")
    before = {module: sys.modules.pop(module) for module in own if module in sys.modules}
    sys.path.insert(0, str(EXAMPLES / name))
    try:
        yield importlib.import_module("pipeline")
    finally:
        sys.path.remove(str(EXAMPLES / name))
        for module in own:
            sys.modules.pop(module, None)
        sys.modules.update(before)


@pytest.fixture(scope="module")
def training() -> Iterator[ModuleType]:
    yield from example("training")


@pytest.fixture(scope="module")
def inference(training: ModuleType) -> Iterator[ModuleType]:
    yield from example("inference")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """A realistic table: empty cells, text among numbers, names, dates, empty columns."""
    random = np.random.default_rng(0)
    rows = 240
    income = random.normal(50, 10, rows)
    in_paris = np.arange(rows) % 3 == 0
    table = pd.DataFrame(
        {
            "id": [f"c{n}" for n in range(rows)],
            " income ": pd.Series(income.round(2)).astype(object),
            "city": pd.Series(np.where(in_paris, "Paris", "Lyon")).astype(object),
            "active": random.random(rows) < 0.5,
            "empty": None,
            "constant": 1,
            "target": np.where(income + 8 * in_paris + random.normal(0, 3, rows) > 52, "yes", "no").astype(object),
        }
    )
    table.loc[::11, " income "] = None
    table.loc[::29, " income "] = "?"
    table.loc[::13, "city"] = None
    table.loc[5, "target"] = None
    return table


@pytest.fixture(scope="module")
def usual(training: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, MemorySink, Path]:
    """A run on the built-in data: its result, its logs and its folder."""
    folder, before = tmp_path_factory.mktemp("run"), Path.cwd()
    os.chdir(folder)
    try:
        with use_context(Context(sink=MemorySink())) as outer:
            trained = training.training.local()
    finally:
        os.chdir(before)
    return trained, cast("MemorySink", outer.sink), folder


def test_training_on_the_built_in_data_is_accurate(usual: tuple[Any, MemorySink, Path]) -> None:
    trained, sink, folder = usual
    test = trained.metrics["test"]
    assert test["accuracy"] > 0.9
    assert test["roc_auc"] > 0.95
    assert min(test["precision"], test["recall"]) > 0.85
    assert sum(map(sum, test["confusion"])) == test["rows"] == 114
    assert len(trained.metrics["validation"]) == 3
    assert trained.metrics["validation"][trained.metrics["selected"]]["roc_auc"] == max(
        one["roc_auc"] for one in trained.metrics["validation"].values()
    )
    assert sink.metrics["missing_cells"] == 78
    assert {"accuracy", "precision", "recall", "roc_auc", "confusion/malignant/benign"} <= set(sink.metrics)
    assert set(sink.artifacts) == {"roc_curves", "confusion_matrix", "feature_importances", "metrics.json"}
    assert json.loads((folder / "metrics.json").read_text()) == trained.metrics


def test_the_report_embeds_its_plots(usual: tuple[Any, MemorySink, Path]) -> None:
    text = (usual[2] / usual[0].report).read_text()
    assert text.count('src="data:image/png;base64,') == 3
    assert "http" not in text
    assert "<script" not in text


def test_the_candidates_run_in_parallel(training: ModuleType) -> None:
    nodes = {node.key: node for node in training.training.compile().nodes}
    for name in ("train_logistic", "train_forest", "train_boosting"):
        assert {source.node for source in nodes[name].inputs.values() if hasattr(source, "node")} == {"split", "clean"}


def test_a_messy_csv(training: ModuleType, work: Path, table: pd.DataFrame) -> None:
    table.to_csv("mine.csv", index=False)
    sink = MemorySink()
    with use_context(Context(sink=sink)):
        trained = training.training.local(source=Path("mine.csv"))
    assert sink.params["dropped_columns"] == ["id", "empty", "constant"]
    assert trained.model.preparation["numeric"] == ["income", "active"]
    assert trained.model.preparation["categories"] == ["city"]
    assert trained.model.preparation["positive"] == "yes"
    assert sink.metrics["rows_dropped"] == 1
    assert trained.metrics["test"]["accuracy"] > 0.7
    assert next(iter(trained.metrics["importances"])) == "income"


def test_more_than_two_classes_and_another_target(training: ModuleType, work: Path, table: pd.DataFrame) -> None:
    random = np.random.default_rng(1)
    table.assign(kind=random.integers(0, 3, len(table))).to_csv("mine.csv", index=False)
    trained = training.training.local(source="mine.csv", target="kind")
    assert trained.metrics["test"]["classes"] == ["0", "1", "2"]
    assert 0 <= trained.metrics["test"]["roc_auc"] <= 1


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": [1, 2, 3]}, r"mine\.csv has no column 'target' \(it has: x\)"),
        ({"x": [1, 2, 3], "target": ["a", "a", "a"]}, r"the column 'target' has one value only \('a'\)"),
        ({"x": [1, 1, 1], "target": ["a", "b", "a"]}, "no column is left to learn from"),
    ],
)
def test_an_unusable_csv(training: ModuleType, work: Path, columns: dict[str, Any], says: str) -> None:
    pd.DataFrame(columns).to_csv("mine.csv", index=False)
    with pytest.raises(ValueError, match=says):
        training.training.local(source="mine.csv")


# -------------------------------------------------------------------------------------------------------- inference


@pytest.fixture(scope="module")
def model(training: ModuleType, table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("data") / "train.csv"
    table.to_csv(file, index=False)
    cleaned = training.clean(training.load(file))
    return training.train_logistic(cleaned.table, cleaned.preparation)


def test_predictions_preprocess_rows_like_training(
    inference: ModuleType, model: Any, table: pd.DataFrame, work: Path
) -> None:
    shuffled = table.sample(frac=1, random_state=0)[["target", "city", " income ", "active", "id"]]
    shuffled.to_csv("new.csv", index=False)
    rows = inference.load_rows(Path("new.csv"), "unused")
    incoming = inference.prepare(rows, model)
    assert list(incoming.features.columns) == list(model.feature_names_in_)
    predictions, summary = inference.predict(model, incoming, "run")
    assert len(predictions) == summary["rows"] == len(table)
    assert summary["accuracy"] > 0.7
    assert predictions["target"].isna().sum() == 1
    assert set(predictions.columns) == {"prediction", "probability", "chance of no", "chance of yes", "target"}
    assert predictions["probability"].between(0.5, 1).all()


def test_some_absent_columns_count_as_missing(inference: ModuleType, model: Any) -> None:
    incoming = inference.prepare(pd.DataFrame({"income": ["90", "n/a"]}), model)
    predictions, summary = inference.predict(model, incoming, "run")
    assert predictions["prediction"].tolist()[0] == "yes"
    assert "accuracy" not in summary
    assert context().params["absent_columns"] == ["active", "city"]
    with pytest.raises(ValueError, match="none of the columns that the model takes: income, active, city"):
        inference.prepare(pd.DataFrame({"other": [1]}), model)


def test_empty_input_is_not_an_error(inference: ModuleType, model: Any) -> None:
    empty = pd.DataFrame({"income": [], "city": [], "active": []})
    predictions, summary = inference.predict(model, inference.prepare(empty, model), "run")
    assert len(predictions) == 0
    assert summary["rows"] == 0


def test_placeholder_zeros_are_missing_for_predictions_too(training: ModuleType, inference: ModuleType) -> None:
    cleaned = training.clean(training.load())
    model = training.train_logistic(cleaned.table, cleaned.preparation)
    incoming = inference.prepare(training.load(), model)
    assert int(incoming.features.isna().sum().sum()) == 78
    assert inference.inference.compile().nodes[0].key == "load_model"
