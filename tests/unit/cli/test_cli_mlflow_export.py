"""Conversion of runs to MLflow's terms, and export to a real MLflow store if mlflow is installed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.runs.metrics import Point, Series
from penstock.client.views import Run, Step
from penstock.errors import ClientError
from penstock_cli.errors import UsageError
from penstock_cli.runs import mlflow_export

RUN = Run(
    run_id="01kcj8f3x1y7m2w9q4v5t6z8ab",
    pipeline="fitting",
    version=3,
    state="succeeded",
    created_at=1000.0,
    finished_at=1002.5,
    labels={"team": "vision"},
    inputs={"depth": {"value": 3}, "table": {"artifact": {"sha256": "a" * 64}}, "kind": {"value": "tree"}},
    steps={
        "fit": Step("fit", params={"rate": 0.1}, tags={"stage": "x"}),
        "load[3]": Step("load[3]", params={"rows": [1]}),
    },
)


def test_a_run_is_converted_to_mlflow_terms() -> None:
    found = mlflow_export.to_mlflow_run(RUN)
    assert (found.experiment, found.name, found.status) == ("fitting", RUN.run_id, "FINISHED")
    assert (found.start_time, found.end_time) == (1_000_000, 1_002_500)
    assert found.params == {
        "depth": "3",
        "table": "a" * 64,
        "kind": "tree",
        "fit/rate": "0.1",
        "load_3_/rows": "[1]",
    }
    assert found.tags["team"] == "vision"
    assert found.tags["stage"] == "x"
    assert found.tags["penstock.run_id"] == RUN.run_id
    assert found.tags["penstock.version"] == "3"


@given(st.lists(st.text(max_size=260), max_size=8))
def test_names_are_valid_in_mlflow_and_unique(names: list[str]) -> None:
    made = mlflow_export.unique(list(dict.fromkeys(names)))
    assert len(set(made)) == len(made)
    for name in made:
        assert re.fullmatch(r"[\w.\- /]{1,250}", name)
        assert not name.startswith("/")
        assert not {"", ".", ".."} & set(name.split("/"))


def test_series_of_several_steps_are_prefixed_with_the_step() -> None:
    known = [Series("loss", "fit"), Series("loss", "fit-2"), Series("acc", "fit")]
    assert mlflow_export.metric_names(known) == ["fit/loss", "fit-2/loss", "acc"]


def test_without_mlflow_or_an_address_the_error_has_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PENSTOCK_MLFLOW_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="pass --to"):
        mlflow_export.export_mlflow(["last"])

    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(UsageError, match=r"pip install 'penstock\[mlflow\]'"):
        mlflow_export.export_mlflow(["last"], to="sqlite://")


class Measured:
    """A client that knows two series, one of them long."""

    def __init__(self) -> None:
        self.cut = False

    def metrics(self, run_id: str) -> list[Series]:
        return [Series("loss", "fit", count=2500), Series("odd[1]", "fit", count=3)]

    def points(self, run_id: str, name: str, **more: Any) -> Iterator[Point]:
        if name == "loss":
            for n in range(2500):
                if self.cut and n == 1500:
                    raise ClientError("cut off")
                yield Point(n, 1000.0 + n, 1 / (n + 1))
        else:
            yield from (Point(None, 1000.0, value) for value in (1.0, math.nan, math.inf))


@pytest.fixture
def store(tmp_path: Path) -> str:
    pytest.importorskip("mlflow", reason="mlflow is not installed: pip install mlflow-skinny sqlalchemy alembic")
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_run_is_exported_to_a_real_store_once(store: str) -> None:
    client: Any = Measured()
    there = mlflow_export.Mlflow(store)
    client.cut = True
    with pytest.raises(ClientError, match="cut off"):
        there.export(client, RUN)
    client.cut = False
    run_id, new = there.export(client, RUN)
    assert new
    assert there.export(client, RUN) == (run_id, False)
    from mlflow.tracking import MlflowClient

    looked: Any = MlflowClient(tracking_uri=store)
    experiment = looked.get_experiment_by_name("fitting")
    (found,) = looked.search_runs([experiment.experiment_id])
    assert (found.info.run_id, found.info.status) == (run_id, "FINISHED")
    assert (found.info.start_time, found.info.end_time) == (1_000_000, 1_002_500)
    assert found.data.params["fit/rate"] == "0.1"
    assert found.data.tags["team"] == "vision"
    history = looked.get_metric_history(run_id, "loss")
    assert [(one.step, one.value) for one in sorted(history, key=lambda one: one.step)] == [
        (n, 1 / (n + 1)) for n in range(2500)
    ]
    odd = sorted(looked.get_metric_history(run_id, "odd_1_"), key=lambda one: one.step)
    assert odd[0].value == 1.0
    assert math.isnan(odd[1].value)
    assert odd[2].value > 1e300


def test_an_mlflow_error_is_reported(store: str) -> None:
    there = mlflow_export.Mlflow(store)
    long: Any = Run(**{**{name: getattr(RUN, name) for name in RUN.__slots__}, "trigger": {"name": ""}, "pipeline": ""})
    with pytest.raises(ClientError, match=r"MLflow at sqlite:.* rejected"):
        there.export(Measured(), long)  # type: ignore[arg-type]
