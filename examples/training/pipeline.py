"""Train a classifier on real measurements: clean, split, three candidates side by side, evaluate, select, report.

    penstock run examples/training
    penstock run examples/training -p source=my.csv -p target=churned

The data that ships inside scikit-learn is the Wisconsin diagnostic breast cancer set: 30 measurements of cell nuclei
in each of 569 images. See README.md for what is done about missing values, and what a CSV of your own must look like.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import report as pages
from sklearn import metrics as scores
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline as Model
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from penstock import Resources, context, pipeline, step

TARGET = "target"
MOST_CATEGORIES = 30
"""A text column with more different values than this is a name or a number of its row, and says nothing in general."""


class Cleaned(NamedTuple):
    """The table, and what was decided about it; predictions need the same decisions."""

    table: pd.DataFrame
    preparation: dict[str, Any]


class Parts(NamedTuple):
    """Candidates learn from `train` and are compared on `validation`; the chosen one is measured on `test`, once."""

    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on rows it has not seen.

    Precision and recall are those of the positive class, or the mean over classes when there are more than two.
    """

    candidate: str
    rows: int
    accuracy: float
    precision: float
    recall: float
    roc_auc: float
    classes: list[str]
    confusion: list[list[int]]
    roc_curve: list[list[float]]


class Best(NamedTuple):
    """The chosen candidate."""

    model: Model
    name: str


class Report(NamedTuple):
    """The page for people and the numbers for programs."""

    page: Path
    metrics: dict[str, Any]


class Trained(NamedTuple):
    """What the pipeline gives."""

    model: Model
    report: Path
    metrics: dict[str, Any]


@step(retries=2, retry_delay="2s", timeout="10m")
def load(source: Path | str = "", target: str = TARGET) -> pd.DataFrame:
    """Read a CSV from a path or an address, or the built-in data; the label becomes the column `target`."""
    if not str(source):
        bunch = load_breast_cancer(as_frame=True)
        table = bunch.frame.rename(columns={"target": TARGET})
        return table.assign(**{TARGET: table[TARGET].map(dict(enumerate(bunch.target_names)))})
    table = pd.read_csv(source, skipinitialspace=True)
    table.columns = [str(name).strip() for name in table.columns]
    if target not in table.columns:
        raise ValueError(f"{source} has no column {target!r} (it has: {', '.join(table.columns[:20])})")
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise ValueError(f"{source} has two columns {twice[0]!r}: rename one")
    return table.rename(columns={TARGET: f"{TARGET}_column", target: TARGET}) if target != TARGET else table


@step
def clean(raw: pd.DataFrame, zeros_are_missing: bool = True, positive: str = "") -> Cleaned:
    """Make missing what is no measurement, drop what carries nothing. Nothing is learned from the rows here."""
    table = raw[raw[TARGET].notna()].drop_duplicates().reset_index(drop=True)
    labels = table.pop(TARGET).map(_label)
    table = table.apply(_numbers_where_possible)
    # Zeros in all of these at once: the contour could not be traced, see README.md.
    unmeasured = [name for name in table.columns if "concav" in name] if zeros_are_missing else []
    table[unmeasured] = table[unmeasured].mask(table[unmeasured] == 0)
    dropped = [name for name in table.columns if table[name].nunique() < 2 or _is_name(table[name])]
    table = table.drop(columns=dropped)
    if not len(table.columns):
        raise ValueError("no column is left to learn from: each has one value, or a different text in each row")
    if labels.nunique() < 2:
        raise ValueError(
            f"the column {TARGET!r} has one value only ({labels.iloc[0]!r}): there is nothing to tell apart"
        )
    numeric = [name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])]
    preparation = {
        "numeric": numeric,
        "categories": [name for name in table.columns if name not in numeric],
        "zero_is_missing": [name for name in unmeasured if name in table.columns],
        "positive": positive or _positive(labels),
    }
    context().log_metric("rows", len(table))
    context().log_metric("rows_dropped", len(raw) - len(table))
    context().log_metric("missing_cells", int(table.isna().sum().sum()))
    context().log_param("dropped_columns", dropped)
    context().log_param("classes", labels.value_counts().to_dict())
    return Cleaned(table.assign(**{TARGET: labels}), preparation)


def _label(value: object) -> str:
    """A class as text. Numbers are read as decimals where a cell is empty, so 1.0 is 1."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _numbers_where_possible(column: pd.Series) -> pd.Series:
    """A column as numbers if nine in ten of its filled cells are; the others ('?', 'n/a') are then missing."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(float).replace([np.inf, -np.inf], np.nan)
    texts = column.astype("string").str.strip()
    texts = texts.mask(texts == "")
    numbers = pd.to_numeric(texts, errors="coerce").astype(float)
    return (
        numbers
        if numbers.notna().sum() >= 0.9 * max(texts.notna().sum(), 1)
        else texts.astype(object).where(texts.notna(), np.nan)
    )


def _is_name(column: pd.Series) -> bool:
    most = min(MOST_CATEGORIES, max(2, len(column) // 2))
    return not pd.api.types.is_numeric_dtype(column) and column.nunique() > most


def _positive(labels: pd.Series) -> str:
    """The class that is looked for: the one that says so, or the rarest."""
    said = [name for name in labels.unique() if name.lower() in ("1", "true", "yes", "positive", "malignant")]
    return str(said[0] if len(said) == 1 else labels.value_counts().index[-1])


@step
def split(table: pd.DataFrame, held_out: float = 0.2, seed: int = 0) -> Parts:
    """Divide the rows at random, each class in proportion where it has enough rows."""
    if not 0 < held_out < 0.5:
        raise ValueError(f"held_out is the part of the rows for validation, and again for test: 0 < {held_out} < 0.5")

    def divide(rows: pd.DataFrame, size: float) -> list[pd.DataFrame]:
        counts = rows[TARGET].value_counts()
        enough = counts.min() >= 2 and len(rows) * size >= len(counts)
        return train_test_split(rows, test_size=size, random_state=seed, stratify=rows[TARGET] if enough else None)

    rest, test = divide(table, held_out)
    train, validation = divide(rest, held_out / (1 - held_out))
    return Parts(train, validation, test)


# ------------------------------------------------------------------------------------------------------- candidates


@step(resources=Resources(cpu=1))
def train_logistic(train: pd.DataFrame, preparation: dict[str, Any], seed: int = 0) -> Model:
    """Logistic regression on scaled measurements."""
    return _fit(train, preparation, LogisticRegression(C=0.5, max_iter=2000, random_state=seed))


@step(resources=Resources(cpu=1))
def train_forest(train: pd.DataFrame, preparation: dict[str, Any], seed: int = 0, trees: int = 200) -> Model:
    """A random forest."""
    return _fit(train, preparation, RandomForestClassifier(n_estimators=trees, min_samples_leaf=2, random_state=seed))


@step(resources=Resources(cpu=1))
def train_boosting(train: pd.DataFrame, preparation: dict[str, Any], seed: int = 0) -> Model:
    """Gradient boosting on histograms."""
    return _fit(train, preparation, HistGradientBoostingClassifier(max_iter=100, random_state=seed))


def _fit(train: pd.DataFrame, preparation: dict[str, Any], classifier: Any) -> Model:
    """Fit imputation, scaling and classifier together, so that nothing is learned from other rows than these."""
    numbers = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    categories = make_pipeline(
        SimpleImputer(strategy="most_frequent", keep_empty_features=True),
        OneHotEncoder(handle_unknown="ignore", min_frequency=2, sparse_output=False),
    )
    columns = ColumnTransformer(
        [("numbers", numbers, preparation["numeric"]), ("categories", categories, preparation["categories"])]
    )
    model = make_pipeline(columns, classifier).fit(train.drop(columns=TARGET), train[TARGET])
    # Whoever predicts must prepare rows in the same way: the model carries what it has to know.
    model.preparation = preparation
    context().log_metric("train_accuracy", model.score(train.drop(columns=TARGET), train[TARGET]))
    return model


# ------------------------------------------------------------------------------------------------------- evaluation


@step
def evaluate(model: Model, rows: pd.DataFrame) -> Evaluation:
    """Measure a model on rows that it has not seen."""
    features, truth = rows.drop(columns=TARGET), rows[TARGET]
    classes = [str(name) for name in model.classes_]
    predicted, chances = model.predict(features), model.predict_proba(features)
    positive = model.preparation["positive"]
    binary = len(classes) == 2
    average: dict[str, Any] = {"average": "binary", "pos_label": positive} if binary else {"average": "macro"}
    found = Evaluation(
        candidate=type(model[-1]).__name__,
        rows=len(rows),
        accuracy=float(scores.accuracy_score(truth, predicted)),
        precision=float(scores.precision_score(truth, predicted, zero_division=0.0, **average)),
        recall=float(scores.recall_score(truth, predicted, zero_division=0.0, **average)),
        roc_auc=_roc_auc(truth, chances, classes, positive),
        classes=classes,
        confusion=scores.confusion_matrix(truth, predicted, labels=classes).tolist(),
        roc_curve=_roc_curve(truth, chances, classes, positive),
    )
    for name in ("accuracy", "precision", "recall", "roc_auc"):
        context().log_metric(name, getattr(found, name))
    for truth_name, counts in zip(classes, found.confusion, strict=True):
        for predicted_name, count in zip(classes, counts, strict=True):
            context().log_metric(f"confusion/{truth_name}/{predicted_name}", count)
    context().log_param("candidate", found.candidate)
    return found


def _roc_auc(truth: pd.Series, chances: np.ndarray, classes: list[str], positive: str) -> float:
    """Area under the curve; the mean over classes, each against the rest, when there are more than two."""
    if truth.nunique() < 2:
        # A class is absent from a small set of rows: there is no curve, and a guess is worth 0.5.
        return 0.5
    asked = [positive] if len(classes) == 2 else [name for name in classes if (truth == name).any()]
    return float(np.mean([scores.roc_auc_score(truth == name, chances[:, classes.index(name)]) for name in asked]))


def _roc_curve(truth: pd.Series, chances: np.ndarray, classes: list[str], positive: str) -> list[list[float]]:
    """False and true positive rates; over all pairs of row and class when there are more than two classes."""
    if truth.nunique() < 2:
        return [[0.0, 1.0], [0.0, 1.0]]
    if len(classes) == 2:
        actual, chance = truth == positive, chances[:, classes.index(positive)]
    else:
        actual, chance = np.ravel([[one == name for name in classes] for one in truth]), np.ravel(chances)
    false_rate, true_rate, _ = scores.roc_curve(actual, chance)
    return [false_rate.round(4).tolist(), true_rate.round(4).tolist()]


@step
def select(models: list[Model], evaluations: list[Evaluation]) -> Best:
    """The candidate with the largest area under the ROC curve on the validation rows; accuracy decides a tie."""
    best = max(range(len(models)), key=lambda one: (evaluations[one].roc_auc, evaluations[one].accuracy))
    context().log_param("selected", evaluations[best].candidate)
    context().log_metric("validation_roc_auc", evaluations[best].roc_auc)
    return Best(models[best], evaluations[best].candidate)


# ----------------------------------------------------------------------------------------------------------- report


@step(name="report")
def write_report(model: Model, evaluations: list[Evaluation], final: Evaluation, test: pd.DataFrame) -> Report:
    """Write one HTML page with its plots inside, the metrics as JSON beside it, and register the model."""
    metrics: dict[str, Any] = {
        "selected": final.candidate,
        "test": _numbers(final),
        "validation": {one.candidate: _numbers(one) for one in evaluations},
        "importances": _importances(model, test),
    }
    figures = pages.draw([asdict(one) for one in evaluations], asdict(final), metrics["importances"])
    for name, figure in figures.items():
        context().log_figure(name, figure)
    measured = {name: getattr(final, name) for name in ("accuracy", "precision", "recall", "roc_auc")}
    for name, value in measured.items():
        context().log_metric(f"test_{name}", value)
    context().register_model(
        "classifier", model, metrics=measured, alias="champion", gate="roc_auc >= champion.roc_auc"
    )
    Path("metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    context().log_artifact("metrics.json", Path("metrics.json"))
    page = Path("report.html")
    page.write_text(pages.page(metrics, figures), encoding="utf-8")
    return Report(page, metrics)


def _numbers(one: Evaluation) -> dict[str, Any]:
    """An evaluation without its curve."""
    return {name: value for name, value in asdict(one).items() if name not in ("roc_curve", "candidate")}


def _importances(model: Model, test: pd.DataFrame) -> dict[str, float]:
    """How much worse the predicted chances (log loss) get when a column is shuffled, largest first.

    It means the same for all kinds of models, and sees changes that are too small to turn a prediction.
    """
    known = test[test[TARGET].isin(model.classes_)]
    sample = known.sample(min(len(known), 500), random_state=0)
    features, truth = sample.drop(columns=TARGET), sample[TARGET]

    def goodness(model: Model, features: pd.DataFrame, truth: pd.Series) -> float:
        chances = model.predict_proba(features)
        right = chances[np.arange(len(truth)), np.searchsorted(model.classes_, truth)]
        return float(np.log(np.clip(right, 1e-6, 1)).mean())

    # About 90 predictions, whatever the number of columns: the report must not take longer than the training.
    repeats = max(1, min(3, 90 // len(features.columns)))
    found = permutation_importance(model, features, truth, scoring=goodness, n_repeats=repeats, random_state=0)
    order = np.argsort(-found.importances_mean)
    return {str(features.columns[i]): round(float(found.importances_mean[i]), 6) for i in order[:30]}


@pipeline
def training(
    source: Path | str = "",
    target: str = TARGET,
    positive: str = "",
    held_out: float = 0.2,
    zeros_are_missing: bool = True,
    seed: int = 0,
) -> Trained:
    """Train three candidates on a table, choose the best, and report on it."""
    table, preparation = clean(load(source, target), zeros_are_missing, positive)
    parts = split(table, held_out, seed)
    candidates = [
        train_logistic(parts.train, preparation, seed),
        train_forest(parts.train, preparation, seed),
        train_boosting(parts.train, preparation, seed),
    ]
    evaluations = [evaluate(model, parts.validation) for model in candidates]
    best = select(candidates, evaluations)
    final = evaluate(best.model, parts.test)
    document = write_report(best.model, evaluations, final, parts.test)
    return Trained(model=best.model, report=document.page, metrics=document.metrics)
