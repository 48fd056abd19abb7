"""Compares the values of a column with those of its reference. Pure."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
from scipy import stats

from penstock.monitoring.reports import ColumnDrift

Series: TypeAlias = Any
"""A pandas column. The types that pandas declares are too wide for a type checker."""

BINS = 10
"""Groups of numbers of which the PSI is computed: deciles of the reference."""

FEW = 10
"""Numbers with at most so many distinct values in the reference are categories."""

_CATEGORIES = 50
_OTHER = "(other)"


def compare(name: str, reference: Series, current: Series, *, psi: float, p_value: float) -> ColumnDrift:
    """Compare a column; it drifted if its PSI is at least `psi` and the p-value of its test below `p_value`."""
    numeric = is_numeric(reference)
    reference, current = _clean(reference, numeric=numeric), _clean(current, numeric=numeric)
    bins = _bins(reference, current) if numeric else _categories(reference, current)
    test, statistic, chance = _numbers_test(reference, current) if numeric else ("chi2", *_chi_squared(*bins))
    index = population_stability(*bins)
    return ColumnDrift(
        name=name,
        kind="numeric" if numeric else "categorical",
        test=test,
        statistic=statistic,
        p_value=chance,
        psi=index,
        drifted=index >= psi and chance < p_value,
        reference=_summary(reference, numeric=numeric),
        current=_summary(current, numeric=numeric),
    )


def is_numeric(column: Series) -> bool:
    """Whether a column is compared as numbers: others are categories."""
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return bool(numbers and column.nunique() > FEW)


def population_stability(reference: np.ndarray, current: np.ndarray) -> float:
    """Return the population stability index of two lists of counts by group.

    Half an observation is added to each group, so that an empty group is finite.
    """
    expected = (reference + 0.5) / (reference + 0.5).sum()
    found = (current + 0.5) / (current + 0.5).sum()
    return float(((found - expected) * np.log(found / expected)).sum())


def _clean(column: Series, *, numeric: bool) -> Series:
    """Return numbers, or texts; what is neither is missing."""
    if numeric:
        numbers: Series = pd.to_numeric(column, errors="coerce")
        return numbers.astype(float).replace([np.inf, -np.inf], np.nan)
    return column.map(category, na_action="ignore")


def category(value: Any) -> str:
    """Return a category as text: 1 and 1.0 are one, because integers with missing values are floats."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _bins(reference: Series, current: Series) -> tuple[np.ndarray, np.ndarray]:
    """Count both columns by decile of the reference; the last group is missing values."""
    edges = np.unique(np.quantile(reference.dropna(), np.linspace(0, 1, BINS + 1)[1:-1]))

    def counts(column: Series) -> np.ndarray:
        groups = np.searchsorted(edges, column.dropna().to_numpy(), side="right")
        return np.append(np.bincount(groups, minlength=len(edges) + 1), column.isna().sum())

    return _occurring(counts(reference), counts(current))


def _categories(reference: Series, current: Series) -> tuple[np.ndarray, np.ndarray]:
    """Count both columns by category; beyond the most frequent ones they are one group."""
    most = set(pd.concat([reference, current]).value_counts().index[:_CATEGORIES])

    def counts(column: Series) -> Series:
        return column.where(column.isin(most) | column.isna(), _OTHER).value_counts(dropna=False)

    table = pd.concat([counts(reference), counts(current)], axis=1).fillna(0)
    return table.iloc[:, 0].to_numpy(float), table.iloc[:, 1].to_numpy(float)


def _occurring(reference: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = (reference + current) > 0
    return reference[kept].astype(float), current[kept].astype(float)


def _numbers_test(reference: Series, current: Series) -> tuple[str, float, float]:
    """Test the numbers and, where some are missing, their share; return the more significant test of the two."""
    statistic, chance = _kolmogorov_smirnov(reference.dropna(), current.dropna())
    expected, found = (np.array([one.notna().sum(), one.isna().sum()]) for one in (reference, current))
    if not expected[1] + found[1]:
        return "ks", statistic, chance
    other, chance_of_missing = _chi_squared(*_occurring(expected, found))
    if chance_of_missing < chance:
        return "chi2", other, min(1.0, 2 * chance_of_missing)
    return "ks", statistic, min(1.0, 2 * chance)


def _kolmogorov_smirnov(reference: Series, current: Series) -> tuple[float, float]:
    if reference.empty or current.empty:
        return (0.0, 1.0) if reference.empty and current.empty else (1.0, 0.0)
    found = cast("Any", stats.ks_2samp(reference.to_numpy(), current.to_numpy(), method="asymp"))
    return float(found.statistic), float(found.pvalue)


def _chi_squared(reference: np.ndarray, current: np.ndarray) -> tuple[float, float]:
    if len(reference) < 2 or not reference.sum() or not current.sum():
        return 0.0, 1.0
    found = cast("Any", stats.chi2_contingency(np.vstack([reference, current])))
    return float(found.statistic), float(found.pvalue)


def _summary(column: Series, *, numeric: bool) -> str:
    known = column.dropna()
    if known.empty:
        return "missing"
    return f"{known.mean():.4g}" if numeric else str(known.value_counts().index[0])[:100]
