"""Monitoring of deployments: steps that collect calls of endpoints, and compare them with training data and labels.

    from penstock import On, pipeline
    from penstock.monitoring import collect_calls, data_drift, load_reference

    @pipeline
    def watching(deployment: str):
        calls = collect_calls(deployment, limit=500)
        return data_drift(load_reference("churn@champion", "features"), calls, deployment, prefix="inputs.customer.")

    watching.deploy("watch-scorer", {"deployment": "scorer"}, triggers=[Cron("@hourly")])

Needs numpy, pandas, pyarrow and scipy: `pip install 'penstock[monitoring]'`. The steps use `Client()`, so they need
access to the platform, as `docs/configuration.md` describes.
"""

from __future__ import annotations

from importlib.util import find_spec

_missing = [name for name in ("numpy", "pandas", "pyarrow", "scipy") if find_spec(name) is None]
if _missing:
    raise ImportError(
        f"penstock.monitoring needs {', '.join(_missing)}, not installed here: pip install 'penstock[monitoring]'"
    )

from penstock.monitoring.calls import collect_calls, collect_labels, flatten, join_labels, load_reference  # noqa: E402
from penstock.monitoring.drift import data_drift, prediction_drift  # noqa: E402
from penstock.monitoring.quality import live_quality  # noqa: E402
from penstock.monitoring.reports import (  # noqa: E402
    DRIFT_DETECTED,
    METRIC_CROSSED,
    ColumnDrift,
    Crossing,
    DriftReport,
    QualityReport,
)

__all__ = [
    "DRIFT_DETECTED",
    "METRIC_CROSSED",
    "ColumnDrift",
    "Crossing",
    "DriftReport",
    "QualityReport",
    "collect_calls",
    "collect_labels",
    "data_drift",
    "flatten",
    "join_labels",
    "live_quality",
    "load_reference",
    "prediction_drift",
]
