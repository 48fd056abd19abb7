"""`context()`: what a step's code may ask and tell the platform while it runs.

For the author of a runner: implement `Sink`, and before the user's function is called do

    from penstock.step_context.contexts import Context, install
    install(Context(run_id=…, step=key, attempt=n, pipeline=…, project=…, sink=my_sink))

`set_context(None)` takes it away again. The context is one per process, on purpose: threads that the user's code starts
find it too, which a context variable would not give them. A sink is called in the thread that logs, so it must be
safe to call from several, and must not block for long. What it gets is already checked:

- `metric(name, value, step)`: `value` is a float and may be NaN or infinite. JSON has no such numbers and `orjson`
  writes them as null, so a sink must keep non-finite values out of the facts it reports (or write them as text).
- `tag(name, value)`: two texts.
- `param(name, value)`: plain JSON of at most `PARAM_LIMIT` characters as text.
- `artifact(name, value)`: a live object; save it at once with `penstock.serialize.save(value, Any, store)`.
- `model(wanted)`: what is to be registered as a version of a model when the attempt's end counts; save `wanted.value`
  at once.
- `progress(fraction, text)`: 0 to 1.
- `checkpoint(value)`: a live object; save it whole before returning, and return what brings it back.

Outside a step `context()` gives one that prints nothing and records in memory (`context().metrics` and so on), so
unit tests of steps need nothing. A test of what a step does after a lost attempt runs it in
`use_context(first.next_attempt())`,
where `first` is the context that it was lost in.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, SupportsFloat

from penstock.step_context.models import ModelRegistration, ModelRegistrationMixin, ModelSink

PARAM_LIMIT = 10_000
NAME_LIMIT = 200
TAG_NAME_LIMIT = 100
TAG_LIMIT = 1_000
MAX_TAGS = 64
"""Tags of one attempt."""

_HISTORY = 100_000
_MODELS = 100
_STEP_LIMIT = 2**63 - 1
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Sink(ModelSink, Protocol):
    """Where a context sends what the user's code logs."""

    def metric(self, name: str, value: float, step: int | None) -> None:
        """A measurement, at `step` of a series if given."""
        ...

    def param(self, name: str, value: Any) -> None:
        """A parameter as plain JSON."""
        ...

    def tag(self, name: str, value: str) -> None:
        """A text to find the run by."""
        ...

    def artifact(self, name: str, value: object) -> None:
        """An object to keep beside the step's outputs."""
        ...

    def progress(self, fraction: float, text: str) -> None:
        """How far the step is, 0 to 1."""
        ...

    def checkpoint(self, value: object) -> Callable[[], Any]:
        """Keep an object for the attempt that follows if this one is lost; returns what brings it back."""
        ...


class Metric(NamedTuple):
    """One logged measurement."""

    name: str
    value: float
    step: int | None


@dataclass
class MemorySink:
    """A sink that keeps everything in memory: of measurements the last 100,000, of models the last 100."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    artifacts: dict[str, object] = field(default_factory=dict[str, object])
    models: deque[ModelRegistration] = field(default_factory=lambda: deque[ModelRegistration](maxlen=_MODELS))
    history: deque[Metric] = field(default_factory=lambda: deque[Metric](maxlen=_HISTORY))
    last_progress: tuple[float, str] = (0.0, "")

    def metric(self, name: str, value: float, step: int | None) -> None:
        """Keep a measurement."""
        self.metrics[name] = value
        self.history.append(Metric(name, value, step))

    def param(self, name: str, value: Any) -> None:
        """Keep a parameter."""
        self.params[name] = value

    def tag(self, name: str, value: str) -> None:
        """Keep a tag."""
        self.tags[name] = value

    def artifact(self, name: str, value: object) -> None:
        """Keep an object as it is."""
        self.artifacts[name] = value

    def model(self, wanted: ModelRegistration) -> None:
        """Keep what is to be registered."""
        self.models.append(wanted)

    def progress(self, fraction: float, text: str) -> None:
        """Keep the last progress."""
        self.last_progress = (fraction, text)

    def checkpoint(self, value: object) -> Callable[[], Any]:
        """Keep a copy, which later changes of the object do not reach."""
        kept = copy.deepcopy(value)
        return lambda: copy.deepcopy(kept)


class Context(ModelRegistrationMixin):
    """The attempt that runs now, and how to log from it.

    Attributes:
        run_id: id of the run; `local` outside the platform.
        step: key of the step; empty outside a step.
        attempt: number of this attempt, from 1.
        pipeline: name of the pipeline.
        project: name of the project.
        sink: where logged things go.
        metrics: last value of each metric logged through this context.
        params: last value of each parameter logged through this context.
        tags: what was set through this context.

    `earlier` brings back the last checkpoint of the attempts before, where there is one.
    """

    def __init__(
        self,
        *,
        run_id: str = "local",
        step: str = "",
        attempt: int = 1,
        pipeline: str = "",
        project: str = "default",
        sink: Sink | None = None,
        earlier: Callable[[], Any] | None = None,
    ) -> None:
        self.run_id = run_id
        self.step = step
        self.attempt = attempt
        self.pipeline = pipeline
        self.project = project
        self.sink: Sink = sink or MemorySink()
        self.metrics: dict[str, float] = {}
        self.params: dict[str, Any] = {}
        self.tags: dict[str, str] = {}
        self._earlier = earlier
        self._saved: Callable[[], Any] | None = None

    def log_metric(self, name: str, value: SupportsFloat, step: int | None = None) -> None:
        """Log a number of a series, such as `log_metric("loss", 0.1, step=3)`; it may be NaN or infinite.

        Of one attempt a million numbers in two thousand series are kept; what comes after is left out, and the step's
        output says so once.

        Raises:
            TypeError: `value` is not a number, or `name` or `step` have the wrong type.
            ValueError: `name` is empty, longer than 200 characters or has control characters; `step` has over 63 bits.
        """
        if type(name) is not str or name not in self.metrics:  # else it was checked before
            check_name(name, "log_metric")
        number = value if type(value) is float else _number(name, value)
        at = step if step is None or type(step) is int else _step(name, step)
        if at is not None and not -_STEP_LIMIT <= at <= _STEP_LIMIT:
            raise ValueError(f"log_metric({name!r}): step {at} is out of range: it has more than 63 bits")
        self.metrics[name] = number
        self.sink.metric(name, number, at)

    def log_param(self, name: str, value: object) -> None:
        """Log a setting or a finding: plain JSON data as it is, anything else as its text, cut at 10,000 characters."""
        check_name(name, "log_param")
        kept = plain(value)
        self.params[name] = kept
        self.sink.param(name, kept)

    def set_tag(self, name: str, value: str | float) -> None:
        """Set a text that the run is found by, such as `set_tag("stage", "candidate")`: a label, set from inside.

        Raises:
            TypeError: `name` is no text, or `value` neither text nor number.
            ValueError: `name` has not 1 to 100 characters, `value` over 1,000, or there are more than 64 tags.
        """
        check_name(name, "set_tag", TAG_NAME_LIMIT)
        if not isinstance(value, str | int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - users' code is not always checked
            raise TypeError(f"set_tag({name!r}): the value must be a text or a number, not {type(value).__name__}")
        text = str(value)
        if len(text) > TAG_LIMIT or _CONTROL_CHARACTERS.search(text):
            raise ValueError(
                f"set_tag({name!r}): the value must have at most {TAG_LIMIT:,} characters and no control characters; "
                "long texts go to log_param or log_artifact"
            )
        if name not in self.tags and len(self.tags) >= MAX_TAGS:
            raise ValueError(f"set_tag({name!r}): a step sets at most {MAX_TAGS} tags")
        self.tags[name] = text
        self.sink.tag(name, text)

    def log_table(self, name: str, table: object) -> None:
        """Keep a table: one of pandas, polars or pyarrow, a list of dictionaries (rows) or a dictionary of lists.

        Raises:
            TypeError: it is none of these, or a column mixes texts with numbers and the like.
            ValueError: rows do not have the same columns, or columns not the same length.
        """
        check_name(name, "log_table")
        # Only those who log tables pay for it.
        from penstock.step_context import tables

        self.log_artifact(name, tables.table(name, table))

    def log_artifact(self, name: str, value: object) -> None:
        """Keep an object beside the outputs: a `Path` (file or folder), a table, an array, bytes, JSON data …."""
        check_name(name, "log_artifact")
        self.sink.artifact(name, value)

    def log_figure(self, name: str, figure: object) -> None:
        """Keep a matplotlib figure as a picture, or a plotly figure with its data.

        Raises:
            TypeError: `figure` is no figure (an `Axes` is taken for the figure it is in).
        """
        if hasattr(figure, "to_plotly_json"):
            self.log_artifact(name, figure)
            return
        owner = figure if hasattr(figure, "savefig") else getattr(figure, "figure", None)
        if owner is None or not hasattr(owner, "savefig"):
            raise TypeError(f"log_figure({name!r}) takes a matplotlib or plotly figure, not {type(figure).__name__}")
        self.log_artifact(name, owner)

    def progress(self, fraction: float, text: str = "") -> None:
        """Tell how far the step is, from 0 to 1; values outside are taken for the nearest bound.

        Raises:
            ValueError: `fraction` is not a number.
        """
        if math.isnan(fraction):
            raise ValueError("progress: the fraction is NaN")
        self.sink.progress(min(max(float(fraction), 0.0), 1.0), str(text)[:PARAM_LIMIT])

    def checkpoint(self, value: object) -> None:
        """Save how far the step is, so that another attempt can go on from there if this one fails or is lost.

        Anything that a step can return can be saved. It is kept whole or not at all, and takes the place of the former
        one, when this returns.

        Raises:
            TypeError: it cannot be saved.
        """
        self._saved = self.sink.checkpoint(value)

    def restore(self, default: Any = None) -> Any:
        """The last checkpoint that an earlier attempt of this step in this run saved; `default` where none did."""
        return default if self._earlier is None else self._earlier()

    def next_attempt(self) -> Context:
        """The context of the attempt that follows this one, with its last checkpoint to restore."""
        return Context(
            run_id=self.run_id,
            step=self.step,
            attempt=self.attempt + 1,
            pipeline=self.pipeline,
            project=self.project,
            sink=self.sink,
            earlier=self._saved or self._earlier,
        )


def check_name(name: object, method: str, limit: int = NAME_LIMIT) -> None:
    """Check a name that the user gives.

    Raises:
        TypeError: it is no text.
        ValueError: it is empty, longer than `limit`, or has control characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"{method}: the name must be text, not {type(name).__name__}")
    if not 1 <= len(name) <= limit:
        raise ValueError(f"{method}: the name must have 1 to {limit} characters, not {len(name)}")
    if _CONTROL_CHARACTERS.search(name):
        raise ValueError(f"{method}: the name {name[:50]!r} has control characters, or half of a character")


def _number(name: str, value: SupportsFloat) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError("it is text")
        return float(value)
    except OverflowError as error:
        raise ValueError(f"log_metric({name!r}): the value is too large for a floating-point number") from error
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"log_metric({name!r}): the value must be a number, not {type(value).__name__} ({error}); "
            "texts go to log_param, other objects to log_artifact"
        ) from error


def _step(name: str, step: Any) -> int:
    if not hasattr(step, "__index__"):
        raise TypeError(f"log_metric({name!r}): step must be a whole number, not {type(step).__name__}")
    return int(step)


def plain(value: object) -> Any:
    """Plain JSON data as it is, anything else as its text, cut at `PARAM_LIMIT` characters."""
    try:
        text = json.dumps(value, allow_nan=False)
        text.encode()
        data = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        text = data = str(value).encode(errors="replace").decode()
    return data if len(text) <= PARAM_LIMIT else text[:PARAM_LIMIT]


_default_context = Context()
_current: Context | None = None


def context() -> Context:
    """The context of the step that runs in this process, or one that records in memory."""
    return _current or _default_context


def set_context(new: Context | None) -> None:
    """Make `new` the context of this process; None takes it away."""
    global _current
    _current = new


@contextmanager
def use_context(new: Context) -> Generator[Context]:
    """Make `new` the context for the time of a `with` block."""
    before = _current
    set_context(new)
    try:
        yield new
    finally:
        set_context(before)
