"""A classifier that is retrained when its data drifts, by events alone; `make demo-loop` plays it with real data.

penstock up &                                            # deployments need a platform that keeps running
penstock run examples/retraining/pipeline.py:training    # the first version becomes the champion
penstock deploy examples/retraining                      # the deployments at the end of this file
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline as Model
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock import Client, Endpoint, On, context, pipeline, step, wait_for_event
from penstock.errors import NotFoundError
from penstock.monitoring import (
    DRIFT_DETECTED,
    collect_calls,
    collect_labels,
    data_drift,
    join_labels,
    live_quality,
    load_reference,
    prediction_drift,
)

MEASUREMENTS = [str(name) for name in load_breast_cancer().feature_names]
CHAMPION = "tumours@champion"
CALLS = 60
"""Calls of the endpoint that are compared with the training data at once."""

TRAINED_ON = 300
"""Patients of the data set that the first version is trained on; the demo sends the others."""


def patients() -> pd.DataFrame:
    """Return the 569 patients of the data set in random order: 30 measurements, and the diagnosis as `label`."""
    found = load_breast_cancer(as_frame=True)
    table = found.data.assign(label=found.target.map({0: "malignant", 1: "benign"}))
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


# ------------------------------------------------------------------------------------------------ the endpoint


@step
def predict(model: Model, patient: dict[str, float]) -> dict[str, Any]:
    """Predict the diagnosis of a patient."""
    chances = model.predict_proba(pd.DataFrame([patient])[MEASUREMENTS])[0]
    best = chances.argmax()
    return {"diagnosis": str(model.classes_[best]), "probability": round(float(chances[best]), 4)}


@pipeline
def scoring(model: Model, patient: dict[str, float]):
    """Answer a request to the endpoint."""
    return predict(model, patient)


# ------------------------------------------------------------------------------------------------ its training


@step
def load_patients() -> pd.DataFrame:
    """Load the patients whose diagnosis was known from the start."""
    return patients()[:TRAINED_ON]


@step
def train(rows: pd.DataFrame) -> Model:
    """Train a logistic regression on scaled measurements."""
    return _untrained().fit(rows[MEASUREMENTS], rows["label"])


def _untrained() -> Model:
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000))


@step
def compare_with_champion(model: Model, rows: pd.DataFrame) -> dict[str, float]:
    """Measure a new version and the champion on the same rows; register it, and promote it if it is better."""
    features, labels = rows[MEASUREMENTS], rows["label"]
    # Each fifth of the rows is predicted by a model of the other rows: the champion has not seen them, either.
    accuracy = float(cross_val_score(_untrained(), features, labels, cv=5).mean())
    try:
        before = float(Client().models.get(CHAMPION).load().score(features, labels))
    except NotFoundError:  # this is the first version
        before = 0.5
    metrics = {"accuracy": accuracy, "champion_accuracy": before}
    context().log_metrics(metrics)
    # What calls of the endpoint are compared with while this version is the champion.
    context().log_artifact("reference", rows[[*MEASUREMENTS, "label"]])
    context().register_model(
        "tumours", model, metrics=metrics, alias="champion", gate="accuracy > champion_accuracy", reason="more accurate"
    )
    return metrics


@pipeline
def training():
    """Train the first version."""
    rows = load_patients()
    return compare_with_champion(train(rows), rows)


# ------------------------------------------------------------------------------------------------ the loop


@pipeline
def watching(deployment: str = "scorer"):
    """Compare the latest calls with the data that the champion was trained on."""
    calls = collect_calls(deployment, limit=CALLS)
    reference = load_reference(CHAMPION, "reference")
    drift = data_drift(reference, calls, deployment, prefix="inputs.patient.", columns=MEASUREMENTS, min_columns=3)
    predictions = prediction_drift(reference, calls, deployment, "outputs.result.diagnosis", "label")
    return {"calls": calls, "data": drift, "predictions": predictions}


@step
def load_calls(run_id: str) -> pd.DataFrame:
    """Load the calls that a run of `watching` has compared."""
    return Client().artifacts.load(run_id, output="calls")


@step
def request_diagnoses(calls: pd.DataFrame) -> str:
    """Request confirmed diagnoses from the laboratory; its answer has the id of this run as its key."""
    run_id = context().run_id
    context().send_event("clinic.diagnoses.requested", {"requests": list(calls["request_id"])}, key=run_id)
    return run_id


@step
def tabulate(answer: dict[str, Any]) -> pd.DataFrame:
    """Return the diagnoses of the laboratory's answer as a table."""
    return pd.DataFrame(answer["labels"], columns=["request_id", "label"])


@step
def as_patients(rows: pd.DataFrame) -> pd.DataFrame:
    """Return labelled calls as rows to train on."""
    found = rows[[f"inputs.patient.{name}" for name in MEASUREMENTS] + ["label"]]
    return found.rename(columns=lambda name: name.removeprefix("inputs.patient."))


@pipeline
def retraining(watched_by: str):
    """Train a version on the calls that drifted, once the laboratory has confirmed their diagnoses."""
    calls = load_calls(watched_by)
    answer = wait_for_event("clinic.diagnoses.ready", key=request_diagnoses(calls), timeout="7d")
    rows = as_patients(join_labels(calls, tabulate(answer)))
    return compare_with_champion(train(rows), rows)


@pipeline
def measuring(deployment: str = "scorer"):
    """Measure the predictions whose diagnosis is known by now."""
    labels = collect_labels("clinic.diagnoses.ready")
    return live_quality(collect_calls(deployment), labels, deployment, "outputs.result.diagnosis")


scoring.deploy("scorer", inputs={"model": f"model:{CHAMPION}"}, triggers=[Endpoint()])
watching.deploy(
    "watch",
    triggers=[
        On(
            "penstock.run.finished.v1",
            filter="data.deployment == 'scorer' && data.state == 'succeeded'",
            batch=CALLS,
            within="1h",
            name="calls",
        ),
        On(
            "penstock.model.promoted.v1",
            filter="data.model == 'tumours' && data.alias == 'champion'",
            name="promotion",
        ),
    ],
)
retraining.deploy(
    "retrain",
    triggers=[
        On(
            DRIFT_DETECTED,
            filter="data.deployment == 'scorer' && data.kind == 'data'",
            inputs={"watched_by": "data.run_id"},
            throttle="1m",
        )
    ],
)
measuring.deploy("measure", triggers=[On("clinic.diagnoses.ready")])
