"""The steps of `penstock.monitoring` on tables, without a platform; scipy and scikit-learn as oracles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as scores

from penstock.client.views import Run
from penstock.monitoring import (
    Crossing,
    collect_labels,
    data_drift,
    figures,
    flatten,
    join_labels,
    live_quality,
    prediction_drift,
)
from penstock.monitoring import calls as recorded
from penstock.monitoring.statistics import compare, population_stability
from penstock.step_context.contexts import Context, MemorySink, use_context

RANDOM = np.random.default_rng(7)


@pytest.fixture
def sink() -> Any:
    found = MemorySink()
    with use_context(Context(run_id="r1", pipeline="watching", sink=found)):
        yield found


def reference(rows: int = 400) -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "age": random.normal(40, 10, rows),
            "income": random.lognormal(3, 1, rows),
            "country": random.choice(["fr", "de", "it"], rows),
            "visits": random.integers(0, 5, rows),
            "member": random.choice([True, False], rows),
        }
    )


def test_equal_distributions_do_not_drift(sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "log_distributions", lambda *_: None)  # 60 figures take a while
    rows = np.random.default_rng(2)
    alarms = sum(
        data_drift(reference(), reference().sample(80, random_state=int(rows.integers(1e9)))).drifted for _ in range(60)
    )
    assert alarms <= 2
    assert len(sink.events) == alarms


def test_columns_that_differ_are_reported_with_an_event(sink: MemorySink) -> None:
    rows = reference(100)
    current = rows.assign(age=rows["age"] + 20, country="es").add_prefix("inputs.customer.")
    report = data_drift(reference(), current, "scorer", prefix="inputs.customer.", columns=["age", "country", "income"])
    assert (report.drifted, report.drifted_columns, report.missing) == (True, ["country", "age"], [])
    assert [column.test for column in report.columns] == ["chi2", "ks", "ks"]
    assert report.columns[0].current == "es"
    [event] = sink.events
    assert (event.type, event.key) == ("penstock.drift.detected.v1", "scorer")
    assert event.data == {
        "kind": "data", "deployment": "scorer", "run_id": "r1", "pipeline": "watching", "rows": 100,
        "columns": ["country", "age"], "share": 2 / 3, "max_psi": report.columns[0].psi,
        "reason": "data drift of country, age in 100 rows",
    }  # fmt: skip
    assert sink.metrics["drifted_columns"] == 2
    assert sink.metrics["psi/age"] == report.columns[1].psi
    assert {"drift", "report", "distributions"} <= set(sink.artifacts)
    assert "| country | yes |" in str(sink.artifacts["report"])


def test_fewer_drifted_columns_than_required_send_nothing(sink: MemorySink) -> None:
    rows = reference(100)
    report = data_drift(reference(), rows.assign(age=rows["age"] + 20), min_columns=2)
    assert (report.drifted, report.drifted_columns, len(sink.events)) == (False, ["age"], 0)


def test_too_few_rows_and_no_rows_are_not_compared(sink: MemorySink) -> None:
    for rows in (reference(29), pd.DataFrame(columns=["request_id"])):
        report = data_drift(reference(), rows)
        assert not report.drifted
        assert f"{len(rows)} rows, and 400 of the reference, are fewer than 30" in report.note
    assert not sink.events


def test_a_feature_that_is_no_longer_sent_has_drifted(sink: MemorySink) -> None:
    report = data_drift(reference(), reference(100).drop(columns="age"), "scorer", columns=["age", "country"])
    assert (report.drifted, report.missing, report.drifted_columns, report.share) == (True, ["age"], ["age"], 0.5)
    [event] = sink.events
    assert (event.data["columns"], event.data["reason"]) == (["age"], "data drift of age (missing) in 100 rows")
    assert sink.metrics["drifted_columns"] == 1


def test_a_metric_without_numbers_is_beyond_its_threshold(sink: MemorySink) -> None:
    calls = pd.DataFrame({"request_id": [str(n) for n in range(40)], "run_id": "r", "model": "m:1", "version": 1})
    labels = pd.DataFrame({"request_id": calls["request_id"], "label": np.arange(40.0)})
    calls = calls.assign(**{"outputs.result": np.nan})
    report = live_quality(calls, labels, "scorer", kind="regression", at_most={"mae": 2.5})
    assert [(one.metric, one.direction) for one in report.crossed] == [("mae", "above")]
    [event] = sink.events
    assert (event.data["metric"], event.data["value"], event.data["threshold"]) == ("mae", None, 2.5)


def test_calls_of_a_shadow_version_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [call(1, {"n": 1}, 2), call(2, {"n": 1}, 3, trigger={"role": "shadow"})]
    assert list(collected(monkeypatch, *runs)["role"]) == [""]
    assert sorted(collected(monkeypatch, *runs, shadow=True)["role"]) == ["", "shadow"]


def test_columns_that_do_not_exist_are_errors_or_reported(sink: MemorySink) -> None:
    current = reference(50).drop(columns="age")
    assert data_drift(reference(), current).missing == ["age"]
    with pytest.raises(ValueError, match="the reference has no column 'size'; it has age, income"):
        data_drift(reference(), current, columns=["size"])
    with pytest.raises(ValueError, match=r"no column 'inputs\.age' to compare"):
        data_drift(reference(), current, prefix="inputs.")
    with pytest.raises(ValueError, match=r"the reference has no column 'outputs\.result'"):
        prediction_drift(reference(), current)


def test_the_statistics_are_those_of_scipy_and_of_the_definition() -> None:
    before, after = RANDOM.normal(0, 1, 500), RANDOM.normal(0.4, 1, 200)
    found = compare("x", pd.Series(before), pd.Series(after), psi=0.2, p_value=0.01)
    assert (found.statistic, found.p_value) == tuple(stats.ks_2samp(before, after, method="asymp"))[:2]
    names, counts = ["a", "b"], [[60, 40], [30, 70]]
    columns = [pd.Series(np.repeat(names, one)) for one in counts]
    chi = compare("x", *columns, psi=0.2, p_value=0.01)
    wanted = stats.chi2_contingency(np.array(counts))
    assert (chi.kind, chi.statistic, chi.p_value) == ("categorical", wanted.statistic, wanted.pvalue)
    large = population_stability(np.array([6e6, 4e6]), np.array([3e6, 7e6]))
    assert large == pytest.approx(0.3 * np.log(6 / 3) + 0.3 * np.log(7 / 4), abs=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "drifted"),
    [
        (pd.Series(range(100), dtype=float), pd.Series([np.nan] * 100), True),
        (pd.Series([np.nan] * 100), pd.Series([np.nan] * 100), False),
        (pd.Series([np.nan] * 100), pd.Series(["a"] * 100), True),
        (pd.Series([5.0] * 100), pd.Series([5.0] * 100), False),
        (pd.Series([5.0] * 100), pd.Series(["5"] * 100), False),
        (pd.Series([1, 2] * 50), pd.Series([1.0, 2.0] * 50), False),
        (pd.Series([1, 2] * 50), pd.Series([2] * 100), True),
        (pd.Series(range(100)), pd.Series(["a"] * 100), True),
        (pd.Series([*range(99), np.inf]), pd.Series(range(100)), False),
        (pd.Series([f"id{n}" for n in range(300)]), pd.Series([f"id{n}" for n in range(300)]), False),
    ],
)
def test_columns_with_missing_equal_and_foreign_values(before: pd.Series, after: pd.Series, drifted: bool) -> None:
    found = compare("x", before, after, psi=0.2, p_value=0.01)
    assert found.drifted is drifted, found
    assert np.isfinite([found.psi, found.statistic, found.p_value]).all()


def test_predictions_are_compared_with_labels_of_training(sink: MemorySink) -> None:
    calls = pd.DataFrame({"outputs.result.diagnosis": ["benign"] * 10 + ["malignant"] * 90})
    trained = pd.DataFrame({"label": ["benign"] * 60 + ["malignant"] * 40})
    report = prediction_drift(trained, calls, "scorer", "outputs.result.diagnosis", "label")
    assert (report.kind, report.drifted, report.drifted_columns) == ("prediction", True, ["label"])
    assert sink.events[0].data["kind"] == "prediction"


def labelled(rows: int = 60) -> tuple[pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(3)
    calls = pd.DataFrame(
        {
            "request_id": [f"order-{n}" for n in range(rows)],
            "run_id": [f"r{n}" for n in range(rows)],
            "version": 1,
            "model": ["m:1"] * (rows // 2) + [""] * (rows // 2),
            "outputs.result": random.choice(["a", "b", "c"], rows),
        }
    )
    labels = pd.DataFrame({"request_id": calls["request_id"], "label": random.choice(["a", "b", "c"], rows)})
    return calls, labels


def test_the_quality_of_classes_is_that_of_scikit_learn(sink: MemorySink) -> None:
    calls, labels = labelled()
    report = live_quality(calls, labels, "scorer", at_least={"accuracy": 0.9, "recall": 0.01})
    truth, found = labels["label"], calls["outputs.result"]
    assert report.metrics == {
        "accuracy": pytest.approx(scores.accuracy_score(truth, found)),
        "precision": pytest.approx(scores.precision_score(truth, found, average="macro")),
        "recall": pytest.approx(scores.recall_score(truth, found, average="macro")),
        "f1": pytest.approx(scores.f1_score(truth, found, average="macro")),
    }
    assert list(report.by_model) == ["m:1", "v1"]
    assert report.by_model["v1"]["rows"] == 30
    assert report.crossed == [Crossing("accuracy", report.metrics["accuracy"], 0.9, "below")]
    [event] = sink.events
    assert (event.type, event.key) == ("penstock.metric.crossed.v1", "scorer")
    assert (event.data["metric"], event.data["direction"], event.data["rows"]) == ("accuracy", "below", 60)


def test_the_quality_of_numbers() -> None:
    calls, labels = labelled()
    numbers = np.arange(60, dtype=float)
    calls, labels = calls.assign(**{"outputs.result": numbers + 2}), labels.assign(label=numbers)
    report = live_quality(calls, labels, at_most={"mae": 1.5, "rmse": 2.5})
    assert (report.kind, report.metrics) == ("regression", {"mae": 2.0, "rmse": 2.0, "bias": 2.0})
    assert [one.metric for one in report.crossed] == ["mae"]


def test_numbers_that_are_missing_more_often_drift() -> None:
    numbers = pd.Series(np.random.default_rng(5).normal(size=400))
    missing = numbers.where(np.arange(400) % 2 == 0)
    found = compare("age", numbers, missing, psi=0.2, p_value=0.01)
    assert (found.test, found.drifted) == ("chi2", True)
    same = compare("age", missing, missing.sample(frac=1, random_state=1), psi=0.2, p_value=0.01)
    assert (same.drifted, same.p_value) == (False, 1.0)


def test_columns_can_be_numbered() -> None:
    table = pd.DataFrame(np.random.default_rng(5).normal(size=(50, 2)))
    report = data_drift(table, table.rename(columns=lambda n: f"inputs.{n}"), prefix="inputs.")
    assert [column.name for column in report.columns] == ["0", "1"]


def test_few_labels_of_a_regression_are_no_classes() -> None:
    calls, labels = labelled()
    calls, labels = calls.assign(**{"outputs.result": 2.0}), labels.assign(label=1.0)
    report = live_quality(calls[:5], labels[:5], at_most={"mae": 0.5})
    assert (report.kind, report.metrics["mae"], report.crossed) == ("regression", 1.0, [])
    with pytest.raises(ValueError, match="kind must be 'classification' or 'regression', got 'Regression'"):
        live_quality(calls, labels, kind="Regression")


def test_labels_are_joined_by_the_id_of_the_request_or_the_run() -> None:
    calls, _ = labelled(6)
    labels = pd.DataFrame({"request_id": ["order-1", "r4", "unknown"], "label": ["x", "y", "z"]})
    found = join_labels(calls, labels)
    assert found[["request_id", "label"]].to_numpy().tolist() == [["order-1", "x"], ["order-4", "y"]]


def test_few_and_missing_labels_cross_no_threshold(sink: MemorySink) -> None:
    calls, labels = labelled()
    report = live_quality(calls, labels[:10], at_least={"accuracy": 1.1})
    assert (report.labelled, report.crossed, report.note) == (10, [], "10 labelled calls are fewer than 30")
    nothing = live_quality(calls, labels[:0])
    assert (nothing.labelled, nothing.note) == (0, "no call has a label")
    assert not sink.events


def test_wrong_names_of_metrics_and_predictions_are_explained() -> None:
    calls, labels = labelled()
    with pytest.raises(ValueError, match="there is no metric 'auc'; there are accuracy"):
        live_quality(calls, labels, at_least={"auc": 0.9})
    with pytest.raises(ValueError, match=r"no column 'outputs\.score'; they have request_id"):
        live_quality(calls, labels, prediction="outputs.score")


def test_nested_data_becomes_columns() -> None:
    data = {"age": 3, "tags": ["a", {"b": None}], "pair": {"$type": "tuple", "items": [1.5, True]}}
    assert flatten("c", data) == {
        "c.age": 3, "c.tags.0": "a", "c.tags.1.b": None, "c.pair.0": 1.5, "c.pair.1": True,
    }  # fmt: skip
    assert flatten("c", 4) == {"c": 4}
    with pytest.raises(ValueError, match="more than 2000 values"):
        flatten("c", list(range(3000)))


class FakeRuns:
    """Runs of `Client`, newest first."""

    def __init__(self, *found: Any) -> None:
        self.found = list(found)
        self.runs = self
        self.filters: dict[str, Any] = {}

    def list(self, **filters: Any) -> list[Any]:
        self.filters = filters
        return self.found


def call(number: int, inputs: dict[str, Any], output: Any, **more: Any) -> Run:
    values = {name: {"value": value} for name, value in inputs.items()}
    trigger = {"request_id": f"order-{number}"} if number % 2 else {}
    fields: dict[str, Any] = {"created_at": 1000.0 + number, "duration": 0.5, "trigger": trigger} | more
    return Run(f"r{number}", "scoring", 3, inputs=values, outputs={"result": {"value": output}}, **fields)


def collected(monkeypatch: pytest.MonkeyPatch, *runs: Run, **arguments: Any) -> pd.DataFrame:
    monkeypatch.setattr(recorded, "Client", lambda: FakeRuns(*runs))
    return recorded.collect_calls("scorer", **arguments)


def test_calls_are_rows_with_a_column_for_each_value(monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"artifact": {"sha256": "f" * 64}}
    second = call(2, {"customer": {"country": "fr", "age": 5}}, "no")
    first = call(1, {"customer": {"age": 4, "tags": list(range(11))}}, "yes", input_models={"model": "m:1"})
    first.inputs["model"] = first.inputs["photo"] = model
    table = collected(monkeypatch, second, first)
    names = list(table.columns)
    assert names[:7] == ["request_id", "run_id", "at", "duration", "version", "model", "role"]
    tags = [f"inputs.customer.tags.{n}" for n in range(11)]
    assert names[7:] == ["inputs.customer.age", "inputs.customer.country", *tags, "inputs.photo", "outputs.result"]
    assert table["request_id"].tolist() == ["order-1", "r2"]
    assert table["model"].tolist() == ["m:1", ""]
    assert table["inputs.photo"].tolist()[0] == "sha256:" + "f" * 64
    assert table["at"].tolist()[0] == pd.Timestamp("1970-01-01T00:16:41Z")


def test_calls_can_be_sampled_selected_and_exploded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [call(n, {"n": n}, n) for n in range(400)]
    tenth = collected(monkeypatch, *many, sample=0.1)
    assert 15 < len(tenth) < 80
    assert set(tenth["run_id"]) < set(collected(monkeypatch, *many, sample=0.3)["run_id"])
    assert list(collected(monkeypatch, *many, columns=["outputs.*"]).columns)[7:] == ["outputs.result"]
    rows = call(1, {"rows": [{"age": 1}, {"age": 2}], "unit": "cm"}, ["a", "b"])
    table = collected(monkeypatch, rows, explode="rows")
    assert table[["inputs.rows.age", "inputs.unit", "outputs.result"]].to_numpy().tolist() == [
        [1, "cm", "a"],
        [2, "cm", "b"],
    ]
    with pytest.raises(ValueError, match="sample must be more than 0"):
        collected(monkeypatch, sample=0)


@pytest.mark.parametrize("until", ["1970-01-02T00:00:00", "1970-01-02T00:00:00Z", "1970-01-02T01:00:00+01:00"])
def test_the_window_ends_at_a_time(monkeypatch: pytest.MonkeyPatch, until: str) -> None:
    fake = FakeRuns()
    monkeypatch.setattr(recorded, "Client", lambda: fake)
    recorded.collect_calls("scorer", window="1h", until=until)
    assert (fake.filters["since"], fake.filters["until"]) == (82_800.0, 86_400.0)


def test_a_column_with_values_of_several_types_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [call(n, {"x": value}, n + 0.5 if n else 1) for n, value in enumerate((1, "a", None, True))]
    table = collected(monkeypatch, *calls)
    assert table["inputs.x"].fillna("missing").tolist() == ["True", "missing", "a", "1"]
    assert table["outputs.result"].tolist() == [3.5, 2.5, 1.5, 1.0]
    assert list(collected(monkeypatch).columns) == [
        "request_id", "run_id", "at", "duration", "version", "model", "role",
    ]  # fmt: skip


class FakeEvents:
    """Events of `Client`, newest first."""

    def __init__(self, *data: Any) -> None:
        self.rows = [recorded_event(n + 1, one) for n, one in enumerate(data)]
        self.events = self

    def list(self, type: str, *, limit: int, before: int | None) -> list[Any]:
        return [row for row in self.rows[::-1] if before is None or row.sequence < before][: min(limit, 2)]


def recorded_event(sequence: int, data: Any) -> Any:
    from penstock.client.events import Event

    return Event("d", sequence, "com.acme.returned", "shop", str(sequence), 1_700_000_000.0 + sequence, data=data)


def test_the_last_label_of_a_request_counts_in_whatever_form_it_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeEvents(
        {"request_id": "1", "label": "old"},
        {"labels": [{"request_id": "2", "label": 0}, {"request_id": "1", "label": "a"}]},
        [{"request_id": "3", "label": "x"}, {"request_id": "3", "label": "y"}, {"request_id": "4"}],
        "no label", {"request_id": 1, "label": "new"},
    )  # fmt: skip
    monkeypatch.setattr(recorded, "Client", lambda: fake)
    found = dict(collect_labels("com.acme.returned")[["request_id", "label"]].to_numpy().tolist())
    assert found == {"1": "new", "2": "0", "3": "y"}


def test_without_its_libraries_the_import_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'scipy' else real(name, *a)\n"
        "try:\n    import penstock.monitoring\nexcept ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout == "penstock.monitoring needs scipy, not installed here: pip install 'penstock[monitoring]'\n"
