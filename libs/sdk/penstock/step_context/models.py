"""`context().register_model(…)`: what a step wants registered, checked where it is said.

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
    """A version of a model that a step wants registered.

    Attributes:
        model: name of the model.
        value: the live object.
        metrics: its measurements; None: those that the step logs. `non_finite` are those that are no finite numbers, as
        text.
        alias: an alias that it shall have if it passes `gate` and the alias's own.
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
    """Where models go that are to be registered."""

    def model(self, wanted: ModelRegistration) -> None:
        """A live object; save it at once."""
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
        """Have an object become the next version of a registered model, once this step has succeeded.

        It is saved now, like an artifact. If the step fails, or another attempt counts, nothing is registered.

        Args:
            name: name of the model: letters, digits, `_` and `-`.
            model: one object that a step could return: an estimator, a module, a `Path` (file or folder) ….
            metrics: measurements that gates compare; default all that the step logs with `log_metric`.
            alias: an alias that the version shall have, if it passes `gate` and the alias's own gate. If it does not,
                it is registered without it, and the model's history says why.
            gate: such as `accuracy > champion.accuracy + 0.01`.
            reason: why it shall have the alias.
            description: for people.
            tags: texts to tell versions apart by.

        Raises:
            TypeError: a metric is no number, or the object is kept as several files.
            InvalidId: `name` or `alias` are not valid.
            GateError: the gate cannot be read; says where.
            ValueError: a text is too long, or there are too many metrics, tags or models.
        """
        ids.check_name(name, "model")
        if alias is not None:
            check_alias(alias)
        if gate:
            # Only those who have gates pay for reading them.
            from penstock_core.registry import gates

            gates.parse(gate)
        if gate and alias is None:
            raise ValueError(f"register_model({name!r}): a gate guards an alias: say which, with alias=")
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
            raise ValueError(f"{where}: a metric is named by a text of 1 to {_NAME_LIMIT} characters, not {name!r:.60}")
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
                f"{where}: tag {name[:60]!r} has no name of 1 to {_TAG_NAME} or a text of up to {_TAG_TEXT} characters"
            )
    return found
