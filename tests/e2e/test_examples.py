"""The examples through the command line: a training run, then predictions with its model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from penstock_testkit.environment import user_environment

EXAMPLES = Path(__file__).parents[2] / "examples"
COMMAND = Path(sys.executable).with_name("penstock")


def penstock(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run `penstock run … --json` in a folder; return its output and its exit code."""
    environment = user_environment()
    done = subprocess.run(
        [str(COMMAND), "run", *arguments, "--json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout, done.stderr
    return {**json.loads(done.stdout), "exit": done.returncode}


def stored(folder: Path, output: dict[str, Any]) -> Path:
    sha256 = output["artifact"]["sha256"]
    return folder / ".penstock" / "artifacts" / "sha256" / sha256[:2] / sha256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Any]:
    return penstock(folder, str(EXAMPLES / "training"))


def test_training_produces_model_report_and_metrics(folder: Path, trained: dict[str, Any]) -> None:
    assert (trained["exit"], trained["state"], trained["error"]) == (0, "succeeded", None)
    assert set(trained["outputs"]) == {"model", "report", "metrics"}
    assert trained["outputs"]["metrics"]["test"]["accuracy"] > 0.9
    assert trained["outputs"]["model"]["artifact"]["unsafe"]
    assert trained["outputs"]["report"]["artifact"]["filename"] == "report.html"
    assert stored(folder, trained["outputs"]["report"]).read_text().startswith("<!doctype html>")
    assert trained["steps"]["evaluate-2"]["metrics"]["roc_auc"] > 0.9


def test_training_registers_its_model(folder: Path, trained: dict[str, Any]) -> None:
    environment = user_environment()
    command = [str(COMMAND), "models", "show", "classifier@champion", "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    model = json.loads(done.stdout)
    assert (model["version"], model["run_id"], model["step"]) == (1, trained["run_id"], "report")
    assert model["metrics"]["accuracy"] == pytest.approx(trained["outputs"]["metrics"]["test"]["accuracy"], abs=1e-4)
    assert model["artifact"]["sha256"] == trained["outputs"]["model"]["artifact"]["sha256"]


def test_inference_predicts_with_the_model_of_the_last_training_run(folder: Path, trained: dict[str, Any]) -> None:
    predicted = penstock(folder, str(EXAMPLES / "inference"))
    assert predicted["state"] == "succeeded", predicted
    summary = predicted["outputs"]["summary"]
    assert summary["model_run"] == trained["run_id"]
    assert summary["rows"] == 114
    # The same rows and the same model as in training's last test.
    assert summary["accuracy"] == pytest.approx(trained["outputs"]["metrics"]["test"]["accuracy"], abs=1e-4)
    table = pd.read_parquet(stored(folder, predicted["outputs"]["predictions"]))
    assert len(table) == 114


def test_input_rows_from_a_relative_path(folder: Path, trained: dict[str, Any]) -> None:
    load_breast_cancer(as_frame=True).data.head(5).to_csv(folder / "new.csv", index=False)
    arguments = ["-p", "rows=new.csv", "-p", f"model_run={trained['run_id']}"]
    predicted = penstock(folder, str(EXAMPLES / "inference"), *arguments)
    assert predicted["state"] == "succeeded", predicted
    assert predicted["outputs"]["summary"]["predicted"] == {"malignant": 5}


def test_without_a_training_run_the_error_has_a_hint(tmp_path: Path) -> None:
    failed = penstock(tmp_path, str(EXAMPLES / "inference"))
    assert (failed["exit"], failed["state"]) == (1, "failed")
    assert "no run of pipeline 'training' has succeeded yet" in failed["error"]
    assert failed["steps"]["predict"]["state"] == "skipped"
