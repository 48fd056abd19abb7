"""`context()`: access to the running attempt, and logging from a step's code.

For the author of a runner: implement `Sink`, and before the user's function is called do

    from penstock.step_context.contexts import Context, set_context
    set_context(Context(run_id=…, step=key, attempt=n, pipeline=…, project=…, sink=my_sink))

`set_context(None)` removes it. There is one context for each process, so that threads which the user's code starts find
it, too; they would not inherit a context variable. A sink is called in the thread that logs, so it must be
safe to call from several, and must not block for long. Its arguments are already checked:

- `metric(name, value, step)`: `value` is a float and may be NaN or infinite. JSON has no such numbers and `orjson`
  writes them as null, so a sink must keep non-finite values out of the facts it reports (or write them as text).
- `tag(name, value)`: two texts.
- `param(name, value)`: plain JSON of at most `PARAM_LIMIT` characters as text.
- `artifact(name, value)`: a live object; save it at once with `penstock.serialize.save(value, Any, store)`.
- `model(wanted)`: a model version to register when the attempt succeeds; save `wanted.value` at once.
- `event(sent)`: an event to publish when the attempt succeeds; its data is plain JSON.
- `progress(done, total, text)`: finite numbers, 0 to `total`.
- `checkpoint(value)`: a live object; save it before returning, and return a function that loads it.

Outside a step, `context()` returns a context that records in memory (`context().metrics` and so on), so that unit tests
of steps need no set-up. To test how a step resumes after a lost attempt, run it in `use_context(first.next_attempt())`,
where `first` is the context of the lost attempt.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, SupportsFloat, TypeVar

from penstock.step_context import seeding
from penstock.step_context.events import MAX_EVENTS, EventSink, SendEventMixin, SentEvent
from penstock.step_context.models import ModelRegistration, ModelRegistrationMixin, ModelSink
from penstock_core.secrets import references

_T = TypeVar("_T")

PARAM_LIMIT = 10_000
NAME_LIMIT = 200
TAG_NAME_LIMIT = 100
TAG_LIMIT = 1_000
MAX_TAGS = 64
"""Tags of one attempt."""

WORKER_VARIABLE = "PENSTOCK_STEP_CONTEXT"
"""Environment variable that describes the running attempt to processes that its step starts."""

_HISTORY = 100_000
_MODELS = 100
_STEP_LIMIT = 2**63 - 1
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Sink(ModelSink, EventSink, Protocol):
    """Receives what the user's code logs."""

    def metric(self, name: str, value: float, step: int | None) -> None:
        """A measurement, at `step` of a series if given."""
        ...

    def param(self, name: str, value: Any) -> None:
        """A parameter as plain JSON."""
        ...

    def tag(self, name: str, value: str) -> None:
        """A tag, for search."""
        ...

    def artifact(self, name: str, value: object) -> None:
        """An object to store beside the step's outputs."""
        ...

    def progress(self, done: float, total: float, text: str) -> None:
        """Progress of the step."""
        ...

    def checkpoint(self, value: object) -> Callable[[], Any]:
        """Store an object for the next attempt if this one is lost; return a function that loads it."""
        ...


class Metric(NamedTuple):
    """One logged measurement."""

    name: str
    value: float
    step: int | None


@dataclass
class MemorySink:
    """A sink in memory; it keeps the last 100,000 metrics, the last 100 models and the last 20 events."""

    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    artifacts: dict[str, object] = field(default_factory=dict[str, object])
    models: deque[ModelRegistration] = field(default_factory=lambda: deque[ModelRegistration](maxlen=_MODELS))
    events: deque[SentEvent] = field(default_factory=lambda: deque[SentEvent](maxlen=MAX_EVENTS))
    history: deque[Metric] = field(default_factory=lambda: deque[Metric](maxlen=_HISTORY))
    last_progress: tuple[float, float, str] = (0.0, 1.0, "")

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
        """Keep a request to register a model."""
        self.models.append(wanted)

    def event(self, sent: SentEvent) -> None:
        """Keep an event."""
        self.events.append(sent)

    def progress(self, done: float, total: float, text: str) -> None:
        """Keep the last progress."""
        self.last_progress = (done, total, text)

    def checkpoint(self, value: object) -> Callable[[], Any]:
        """Keep a copy."""
        kept = copy.deepcopy(value)
        return lambda: copy.deepcopy(kept)


class Context(ModelRegistrationMixin, SendEventMixin):
    """The attempt that runs now, and how to log from it.

    Attributes:
        run_id: id of the run; `local` outside the platform.
        step: key of the step; empty outside a step.
        attempt: number of this attempt, from 1.
        pipeline: name of the pipeline.
        project: name of the project.
        sink: receives what is logged.
        metrics: last value of each metric logged through this context.
        params: last value of each parameter logged through this context.
        tags: tags set through this context.
        fixed_seed: the option `seed` of the step; None without it.

    The argument `earlier` loads the last checkpoint of earlier attempts; None if there is none. `secrets` are the
    values of the step's secrets by name; None outside of the platform, where environment variables have them.
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
        seed: int | None = None,
        secrets: Mapping[str, str] | None = None,
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
        self.fixed_seed = seed
        self._secrets = secrets
        self._earlier = earlier
        self._saved: Callable[[], Any] | None = None

    @property
    def seed(self) -> int:
        """A seed of 32 bits for random generators, such as `numpy.random.default_rng(context().seed)`.

        With the option `seed` of the step, it is derived from that number and the step's key: equal in each run and
        attempt, different for each item of a mapped step. Otherwise it is derived from the run's id, the step's key and
        the number of the attempt.
        """
        if self.fixed_seed is not None:
            return seeding.derive(self.fixed_seed, self.step)
        return seeding.derive(self.run_id, self.step, self.attempt)

    @property
    def rank(self) -> int:
        """The number of this process among the `nodes` of the step, from 0; it is also in the variable `RANK`."""
        return int(os.environ.get("RANK", "0"))

    @property
    def nodes(self) -> int:
        """The option `nodes` of the step: how many processes run it together; also in the variable `WORLD_SIZE`."""
        return int(os.environ.get("WORLD_SIZE", "1"))

    def secret(self, name: str) -> str:
        """Return the value of a secret that the step declares: `@step(secrets=["db"])` and `context().secret("db")`.

        Its value is masked in logs and errors. Outside of the platform, as in `local()` and `penstock debug`, it is the
        environment variable `PENSTOCK_SECRET_` with the name in capitals, such as `PENSTOCK_SECRET_DB`.

        Raises:
            LookupError: the step does not declare the secret, or the variable is not set.
        """
        if self._secrets is not None:
            if name in self._secrets:
                return self._secrets[name]
            known = ", ".join(map(repr, self._secrets)) or "none"
            raise LookupError(
                f"secret({name!r}): the step does not declare it (its secrets: {known}); add @step(secrets=[{name!r}])"
            )
        variable = references.local_name(name)
        if variable not in os.environ:
            raise LookupError(
                f"secret({name!r}): the platform gives a step its secrets, and this is not a run of it: set the "
                f"environment variable {variable}"
            )
        return os.environ[variable]

    def log_metric(self, name: str, value: SupportsFloat, step: int | None = None) -> None:
        """Log a metric, such as `log_metric("loss", 0.1, step=3)`; the value may be NaN or infinite.

        An attempt can log one million values in two thousand series. Further values are dropped, with one warning in
        the step's output.

        Raises:
            TypeError: `value` is not a number, or `name` or `step` have the wrong type.
            ValueError: `name` is empty, longer than 200 characters or has control characters; `step` exceeds 63 bits.
        """
        if type(name) is not str or name not in self.metrics:  # otherwise it was checked before
            check_name(name, "log_metric")
        number = value if type(value) is float else _number(name, value)
        at = step if step is None or type(step) is int else _step(name, step)
        if at is not None and not -_STEP_LIMIT <= at <= _STEP_LIMIT:
            raise ValueError(f"log_metric({name!r}): step {at} is out of range: it has more than 63 bits")
        self.metrics[name] = number
        self.sink.metric(name, number, at)

    def log_metrics(self, metrics: Mapping[str, SupportsFloat], step: int | None = None) -> None:
        """Log several metrics, such as `log_metrics({"loss": 0.1, "accuracy": 0.97}, step=3)`.

        Raises:
            TypeError: `metrics` is not a dictionary, or as `log_metric`.
            ValueError: as `log_metric`.
        """
        for name, value in _entries("log_metrics", metrics):
            self.log_metric(name, value, step)

    def log_param(self, name: str, value: object) -> None:
        """Log a parameter: JSON data as it is, any other object as its `str`, truncated to 10,000 characters."""
        check_name(name, "log_param")
        kept = plain(value)
        self.params[name] = kept
        self.sink.param(name, kept)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log several parameters, such as `log_params({"solver": "sgd", "depth": 3})`; see `log_param`.

        Raises:
            TypeError: `params` is not a dictionary with names as keys.
            ValueError: a name is empty, too long or has control characters.
        """
        for name, value in _entries("log_params", params):
            self.log_param(name, value)

    def set_tag(self, name: str, value: str | float) -> None:
        """Set a tag, such as `set_tag("stage", "candidate")`; runs can be searched by tags.

        Raises:
            TypeError: `name` is not a str, or `value` is neither str nor number.
            ValueError: `name` has not 1 to 100 characters, `value` over 1,000, or there are more than 64 tags.
        """
        check_name(name, "set_tag", TAG_NAME_LIMIT)
        if not isinstance(value, str | int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - users' code is not always checked
            raise TypeError(f"set_tag({name!r}): the value must be a string or a number, not {type(value).__name__}")
        text = str(value)
        if len(text) > TAG_LIMIT or _CONTROL_CHARACTERS.search(text):
            raise ValueError(
                f"set_tag({name!r}): the value must have at most {TAG_LIMIT:,} characters and no control characters; "
                "long log strings with log_param or log_artifact"
            )
        if name not in self.tags and len(self.tags) >= MAX_TAGS:
            raise ValueError(f"set_tag({name!r}): a step sets at most {MAX_TAGS} tags")
        self.tags[name] = text
        self.sink.tag(name, text)

    def log_table(self, name: str, table: object) -> None:
        """Log a table: a pandas, polars or pyarrow table, a list of dictionaries (rows) or a dictionary of lists.

        Raises:
            TypeError: it is none of these, or a column mixes texts with numbers and the like.
            ValueError: rows do not have the same columns, or columns not the same length.
        """
        check_name(name, "log_table")
        # Imported only by steps that log tables.
        from penstock.step_context import tables

        self.log_artifact(name, tables.table(name, table))

    def log_artifact(self, name: str, value: object) -> None:
        """Log an object as an artifact: a `Path` (file or folder), a table, an array, bytes, JSON data …."""
        check_name(name, "log_artifact")
        self.sink.artifact(name, value)

    def log_figure(self, name: str, figure: object) -> None:
        """Log a matplotlib figure as an image, or a plotly figure with its data.

        Raises:
            TypeError: `figure` is not a figure (of an `Axes`, its figure is logged).
        """
        if hasattr(figure, "to_plotly_json"):
            self.log_artifact(name, figure)
            return
        owner = figure if hasattr(figure, "savefig") else getattr(figure, "figure", None)
        if owner is None or not hasattr(owner, "savefig"):
            raise TypeError(f"log_figure({name!r}) takes a matplotlib or plotly figure, not {type(figure).__name__}")
        self.log_artifact(name, owner)

    def progress(self, done: float, total: float = 1.0, text: str = "") -> None:
        """Report how far the step is, such as `progress(3, 10, "epoch 3")`: it is shown as a bar while the step runs.

        Only the latest report counts, so it can be called as often as needed; the platform shows one each second.

        Args:
            done: what is done, in any unit; values outside of 0 to `total` are clipped.
            total: what there is to do.
            text: what the step is doing, truncated to 200 characters.

        Raises:
            TypeError: `done` or `total` is not a number, or `text` not a string.
            ValueError: `done` or `total` is not finite, or `total` is not positive.
        """
        finished, whole = _amount("done", done), _amount("total", total)
        if whole <= 0:
            raise ValueError(f"progress: total must be positive, got {total!r}")
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users' code is not always checked
            raise TypeError(f"progress: the text must be a string, not {type(text).__name__}")
        self.sink.progress(min(max(finished, 0), whole), whole, text)

    def checkpoint(self, value: object) -> None:
        """Save a checkpoint, from which the next attempt can resume if this one fails or is lost.

        Anything that a step can return can be saved. The checkpoint replaces the previous one atomically.

        Raises:
            TypeError: it cannot be saved.
        """
        self._saved = self.sink.checkpoint(value)

    def restore(self, default: Any = None) -> Any:
        """Return the last checkpoint of an earlier attempt of this step in this run, or `default`."""
        return default if self._earlier is None else self._earlier()

    def next_attempt(self) -> Context:
        """Return a context for the next attempt, which restores this one's last checkpoint."""
        return Context(
            run_id=self.run_id,
            step=self.step,
            attempt=self.attempt + 1,
            pipeline=self.pipeline,
            project=self.project,
            sink=self.sink,
            earlier=self._saved or self._earlier,
            seed=self.fixed_seed,
            secrets=self._secrets,
        )


def check_name(name: object, method: str, limit: int = NAME_LIMIT) -> None:
    """Check a name.

    Raises:
        TypeError: it is not a str.
        ValueError: it is empty, longer than `limit`, or has control characters.
    """
    if not isinstance(name, str):
        raise TypeError(f"{method}: the name must be text, not {type(name).__name__}")
    if not 1 <= len(name) <= limit:
        raise ValueError(f"{method}: the name must have 1 to {limit} characters, not {len(name)}")
    if _CONTROL_CHARACTERS.search(name):
        raise ValueError(f"{method}: the name {name[:50]!r} has control characters or a lone surrogate")


def _entries(method: str, given: Mapping[str, _T]) -> Iterable[tuple[str, _T]]:
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - users' code is not always checked
        raise TypeError(f"{method} takes a dictionary of values by name, not {type(given).__name__}")
    return given.items()


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
            "log strings with log_param, other objects with log_artifact"
        ) from error


def _amount(name: str, value: Any) -> float:
    """Return a number for `progress`; whole numbers remain whole."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"progress: {name} must be a number, not {type(value).__name__}") from error
    if not math.isfinite(number):
        raise ValueError(f"progress: {name} is {number}")
    return int(number) if number.is_integer() else number


def _step(name: str, step: Any) -> int:
    if not hasattr(step, "__index__"):
        raise TypeError(f"log_metric({name!r}): step must be a whole number, not {type(step).__name__}")
    return int(step)


def plain(value: object) -> Any:
    """Return JSON data as it is, any other object as its `str`, truncated to `PARAM_LIMIT` characters."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()  # refuses lone surrogates, which no JSON reader accepts
        data = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        text = data = str(value).encode(errors="replace").decode()
    return data if len(text) <= PARAM_LIMIT else text[:PARAM_LIMIT]


_default_context = Context()
_current: Context | None = None


def running() -> Context | None:
    """Return the context of the step that runs in this process or has started it; None outside of steps."""
    return context() if _current is not None or WORKER_VARIABLE in os.environ else None


def context() -> Context:
    """Return the context of the step that runs in this process or has started it, or one that records in memory."""
    if _current is None and WORKER_VARIABLE in os.environ:
        # A process that a step has started. The step's runner knows how to write to its files.
        about = json.loads(os.environ[WORKER_VARIABLE])
        set_context(importlib.import_module(about["opener"]).open_announced(about))
    return _current or _default_context


def set_context(new: Context | None) -> None:
    """Set the context of this process; None removes it."""
    global _current
    _current = new


@contextmanager
def use_context(new: Context) -> Generator[Context]:
    """Set the context within a `with` block."""
    before = _current
    set_context(new)
    try:
        yield new
    finally:
        set_context(before)
