"""`context().register_model(…)`: requests to register a model version, checked where the step makes them.

The part of `Context` that is about models. What is checked here goes to the sink; on the platform it travels with the
end of the attempt, so that it counts only if that end counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, SupportsFloat

from penstock_core import ids
from penstock_core.registry.facts import TAGS_LIMIT, TEXT_LIMIT, check_alias

MAX_MODELS = 20
"""Versions that one attempt may register."""

_NAME_LIMIT = 200
_METRICS = 500
_TAG_NAME, _TAG_TEXT = 100, 1_000


@dataclass(frozen=True, slots=True)
class ModelRegistration:
    """A step's request to register a version of a model.

    Attributes:
        model: name of the model.
        value: the live object.
        metrics: finite metrics; None: those that the step logs.
        non_finite: metrics that are NaN or infinite, as text.
        alias: an alias to point at the version if `gate` and the alias's own gate pass.
    """

    model: str
    value: object
    metrics: dict[str, float] | None = None
    non_finite: dict[str, str] = field(default_factory=dict[str, str])
    alias: str = ""
    gate: str = ""
    reason: str = ""
    description: str = ""
    tags: dict[str, str] = field(default_factory=dict[str, str])


class ModelSink(Protocol):
    """Receives requests to register models."""

    def model(self, wanted: ModelRegistration) -> None:
        """Receive a live object; save it before returning."""
        ...


class ModelRegistrationMixin:
    """The part of `Context` that is about models."""

    sink: Any

    def register_model(
        self,
        name: str,
        model: object,
        *,
        metrics: Mapping[str, SupportsFloat] | None = None,
        alias: str | None = None,
        gate: str | None = None,
        reason: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Register an object as the next version of a model, once this step has succeeded.

        The object is saved now, like an artifact. Nothing is registered if the step fails.

        Args:
            name: name of the model: letters, digits, `_` and `-`.
            model: one object that a step could return: an estimator, a module, a `Path` (file or folder) ….
            metrics: metrics that gates compare; default: all that the step logs with `log_metric`.
            alias: an alias to point at the version if `gate` and the alias's own gate pass. Otherwise the version is
                registered without the alias, and the model's history records why.
            gate: a condition such as `accuracy > champion.accuracy + 0.01`.
            reason: why the alias moves; recorded in the history.
            description: free text.
            tags: texts by name, for search.

        Raises:
            TypeError: a metric is not a number, or the object is stored as several artifacts.
            InvalidIdError: `name` or `alias` is not valid.
            GateError: the gate is not valid; the message names the position.
            ValueError: a text is too long, or there are too many metrics, tags or models.
        """
        ids.check_name(name, "model")
        if alias is not None:
            check_alias(alias)
        if gate:
            # Imported only where a gate is given.
            from penstock_core.registry import gates

            gates.parse(gate)
        if gate and alias is None:
            raise ValueError(f"register_model({name!r}): gate= requires alias=")
        for what, text in (("reason", reason), ("description", description)):
            if len(text) > TEXT_LIMIT:
                raise ValueError(f"register_model({name!r}): the {what} has more than {TEXT_LIMIT} characters")
        finite, non_finite = finite_metrics(f"register_model({name!r})", metrics or {})
        wanted = ModelRegistration(
            model=name,
            value=model,
            metrics=None if metrics is None else finite,
            non_finite=non_finite,
            alias=alias or "",
            gate=gate or "",
            reason=reason,
            description=description,
            tags=check_tags(f"register_model({name!r})", tags or {}),
        )
        self.sink.model(wanted)


def finite_metrics(where: str, metrics: Mapping[str, SupportsFloat]) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics as numbers, and those that are not finite as text.

    Raises:
        TypeError: one is no number.
        ValueError: there are too many, or one has no valid name.
    """
    if len(metrics) > _METRICS:
        raise ValueError(f"{where}: {len(metrics)} metrics are more than {_METRICS}")
    finite: dict[str, float] = {}
    non_finite: dict[str, str] = {}
    for name, value in metrics.items():
        if not isinstance(name, str) or not 1 <= len(name) <= _NAME_LIMIT:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"{where}: the name of a metric must be a string of 1 to {_NAME_LIMIT} characters, not {name!r:.60}"
            )
        try:
            if isinstance(value, str | bytes | bool):
                raise TypeError("it has another type")
            number = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(
                f"{where}: metric {name!r} must be a number, not {value!r:.60} ({type(value).__name__})"
            ) from error
        if math.isfinite(number):
            finite[name] = number
        else:
            non_finite[name] = str(number)
    return finite, non_finite


def check_tags(where: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as texts.

    Raises:
        ValueError: there are too many, or one is too long.
    """
    found = {str(name): str(text) for name, text in tags.items()}
    if len(found) > TAGS_LIMIT:
        raise ValueError(f"{where}: {len(found)} tags are more than {TAGS_LIMIT}")
    for name, text in found.items():
        if not 1 <= len(name) <= _TAG_NAME or len(text) > _TAG_TEXT:
            raise ValueError(
                f"{where}: tag {name[:60]!r} must have a name of 1 to {_TAG_NAME} and a text of up to "
                f"{_TAG_TEXT} characters"
            )
    return found
