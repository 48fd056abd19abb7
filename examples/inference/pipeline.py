"""Predict with the model of the last good training run.

penstock run examples/training                       # once, or whenever the model should be new
penstock run examples/inference                      # predicts the rows that training held out
penstock run examples/inference -p rows=new.csv      # predicts rows of yours
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline as Model

from penstock import Client, context, pipeline, step

TARGET = "target"


class Trained(NamedTuple):
    """A model, and the training run that it is from."""

    model: Model
    run_id: str


class Incoming(NamedTuple):
    """Rows as they came, and the columns that the model takes, prepared."""

    rows: pd.DataFrame
    features: pd.DataFrame


class Predicted(NamedTuple):
    """One row of predictions for each row that came in, and an account of them."""

    predictions: pd.DataFrame
    summary: dict[str, Any]


@step(retries=2, retry_delay="1s", timeout="5m")
def load_model(model_run: str = "latest") -> Trained:
    """Load the model of a training run: the last that succeeded, or the one named."""
    client = Client()
    if model_run == "latest":
        runs = client.runs.list(pipeline="training", state="succeeded", limit=1)
        if not runs:
            raise LookupError("no run of pipeline 'training' has succeeded yet: penstock run examples/training")
        model_run = runs[0].run_id
    context().log_param("model_run", model_run)
    return Trained(client.artifacts.load(model_run, output="model"), model_run)


@step(retries=2, retry_delay="1s", timeout="10m")
def load_rows(rows: Path | str, model_run: str) -> pd.DataFrame:
    """Read a CSV from a path or an address; without one, the rows that the training run kept for its last test."""
    if not str(rows):
        return Client().artifacts.load(model_run, step="split", output="test").reset_index(drop=True)
    return pd.read_csv(rows, skipinitialspace=True)


@step
def prepare(rows: pd.DataFrame, model: Model) -> Incoming:
    """Prepare rows as training did. The model says how, so that the two cannot drift apart."""
    rows = rows.set_axis([str(name).strip() for name in rows.columns], axis="columns")
    preparation: dict[str, list[str]] = model.preparation
    wanted = [*preparation["numeric"], *preparation["categories"]]
    absent = [name for name in wanted if name not in rows.columns]
    if len(absent) == len(wanted):
        raise ValueError(f"the rows have none of the columns that the model takes: {', '.join(wanted[:20])}")
    # What is absent or no number is missing; the model fills it in as it learned to.
    features = rows.reindex(columns=wanted)
    for name in preparation["numeric"]:
        features[name] = pd.to_numeric(features[name], errors="coerce").astype(float).replace([np.inf, -np.inf], np.nan)
    for name in preparation["categories"]:
        texts = features[name].astype("string").str.strip()
        features[name] = texts.astype(object).where(texts.notna() & (texts != ""), np.nan)
    zeros = preparation["zero_is_missing"]
    features[zeros] = features[zeros].mask(features[zeros] == 0)
    context().log_metric("rows", len(rows))
    context().log_metric("missing_cells", int(features.isna().sum().sum()))
    context().log_param("absent_columns", absent)
    return Incoming(rows, features[list(model.feature_names_in_)])


@step
def predict(model: Model, incoming: Incoming, model_run: str) -> Predicted:
    """Predict a class and its probability for each row; where the truth is known, say how often it was right."""
    rows, features = incoming
    classes = np.array(model.classes_)
    chances = model.predict_proba(features) if len(features) else np.zeros((0, len(classes)))
    predictions = pd.DataFrame(
        {"prediction": classes[chances.argmax(axis=1)], "probability": chances.max(axis=1)}, index=rows.index
    )
    for index, name in enumerate(classes):
        predictions[f"chance of {name}"] = chances[:, index]
    summary: dict[str, Any] = {
        "model_run": model_run,
        "rows": len(predictions),
        "predicted": {str(name): int(count) for name, count in predictions["prediction"].value_counts().items()},
        "mean_probability": round(float(predictions["probability"].mean()), 4) if len(predictions) else None,
    }
    if TARGET in rows.columns:
        truth = rows[TARGET].dropna().map(_label)
        predictions[TARGET] = truth
        if len(truth):
            summary["accuracy"] = round(float((truth == predictions.loc[truth.index, "prediction"]).mean()), 4)
            context().log_metric("accuracy", summary["accuracy"])
    return Predicted(predictions, summary)


def _label(value: object) -> str:
    """A class as training names it: text, and 1.0 is 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


@pipeline
def inference(model_run: str = "latest", rows: Path | str = "") -> Predicted:
    """Predict rows with the model of a training run."""
    trained = load_model(model_run)
    incoming = prepare(load_rows(rows, trained.run_id), trained.model)
    return predict(trained.model, incoming, trained.run_id)
