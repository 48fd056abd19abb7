"""Views of runs and steps as the client returns them: frozen dataclasses. Times are Unix seconds.

Unknown fields of a newer platform are ignored; missing fields take their defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from penstock.client import html
from penstock.client.http.sse import Message
from penstock.client.http.transport import Transport

_HTML_STEPS = 30
_ITEMS_PAGE = 500
_HTML_METRICS = 6
"""Most steps, and most metrics of each, that notebooks show."""

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "skipped"})

_T = TypeVar("_T")
_S = TypeVar("_S", bound="Step")


@dataclass(frozen=True, slots=True)
class StepError:
    """Why a step failed."""

    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


@dataclass(frozen=True, slots=True)
class Cache:
    """What the cache did for a step; see `penstock_core.facts.CacheReport`."""

    hit: bool = False
    key: str = ""
    parts: dict[str, str] = field(default_factory=dict[str, str])
    differs: tuple[str, ...] = ()
    from_run: str = ""
    from_step: str = ""
    stored_at: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class FailedItem:
    """An item of a mapped step that failed, with type and message of its error."""

    key: str
    type: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.type}: {self.message}"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is, as its step reported it at `at`: `done` of `total`."""

    done: float
    total: float
    text: str = ""
    at: float = 0.0

    @property
    def fraction(self) -> float:
        """Progress from 0 to 1."""
        return self.done / self.total

    def __str__(self) -> str:
        amount = f"{self.fraction:.0%}" if self.total == 1 else f"{self.done:g}/{self.total:g}"
        return f"{amount} {self.text}".rstrip()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last checkpoint of a step: the attempt that saved it, the time, and its value as JSON."""

    attempt: int
    at: float
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WaitsFor:
    """What a suspended step waits for; fields that do not apply to its `kind` are None.

    Attributes:
        until: when it wakes up or times out; Unix seconds.
        type: type of the event; `key` is its key.
        run_id: the child run; `pipeline` is its pipeline.
    """

    kind: str
    attempt: int = 1
    since: float = 0.0
    until: float | None = None
    question: str | None = None
    choices: tuple[str, ...] = ()
    default: str | None = None
    type: str | None = None
    key: str | None = None
    run_id: str | None = None
    pipeline: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The state of a step of a run.

    Attributes:
        metrics: the last values; `non_finite` are those that are NaN or infinite, as text.
        outputs: values as JSON: inline, or a reference to an artifact.
        artifacts: logged artifacts, in the same form; of a running attempt those stored so far.
        checkpoint: the last one of any attempt.
        from_run: the run whose result the step reuses.
        items: of a mapped step, `count`, how many items have `finished`, and the number of items by state.
        progress: the latest that the present attempt reported; None once it succeeded.
        last_failed: of a mapped step, the item that failed last.
        item_of: of an item, the key of the mapped step.
    """

    key: str
    state: str = "waiting"
    attempts: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    non_finite: dict[str, str] = field(default_factory=dict[str, str])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    reason: str | None = None
    error: StepError | None = None
    executor: str | None = None
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    artifacts: dict[str, Any] = field(default_factory=dict[str, Any])
    checkpoint: Checkpoint | None = None
    cache: Cache | None = None
    waits_for: WaitsFor | None = None
    from_run: str | None = None
    depends_on: tuple[str, ...] = ()
    items: dict[str, int] | None = None
    progress: Progress | None = None
    last_failed: FailedItem | None = None
    item_of: str | None = None

    @property
    def seconds(self) -> float | None:
        """Duration of the last attempt, None until it has finished."""
        if not self.started_at or not self.finished_at:
            return None
        return self.finished_at - self.started_at

    def __repr__(self) -> str:
        took = f", {self.seconds:.3f} s" if self.seconds is not None else ""
        return f"Step({self.key!r}, {self.state}{took})"


@dataclass(frozen=True, slots=True)
class Item(Step):
    """An item of a mapped step, with the inputs that differ between items, as JSON."""

    inputs: dict[str, Any] = field(default_factory=dict[str, Any])

    __repr__ = Step.__repr__


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a step. Durations are in seconds, and None if they are unknown.

    Attributes:
        number: from 1.
        state: `queued`, `running`, `suspended`, or its outcome.
        started_at: when the function was called; of a running attempt, when its process was created.
        queue_seconds: until an executor began with it.
        load_seconds: while the source and the inputs were fetched and loaded, and the process was created.
        run_seconds: of the function.
        save_seconds: while its outputs were stored.
    """

    number: int
    state: str
    executor: str | None = None
    requested_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    queue_seconds: float | None = None
    load_seconds: float | None = None
    run_seconds: float | None = None
    save_seconds: float | None = None
    error: StepError | None = None


@dataclass(frozen=True, slots=True)
class StepDetail(Step):
    """A step or item with its inputs and attempts.

    Attributes:
        inputs: values as JSON: inline, or a reference to an artifact. Those of a mapped step are its lists and what all
            items share.
        input_models: the registered models among them, such as `churn:3`, by name.
        history: its attempts, in order.
    """

    run_id: str = ""
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    input_models: dict[str, str] = field(default_factory=dict[str, str])
    history: tuple[Attempt, ...] = ()

    __repr__ = Step.__repr__


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a resumed run reuses.

    Attributes:
        from_run: the earlier run.
        steps: number of steps whose results are reused.
        items: of mapped steps that run again, the number of reused items.
        rerun_steps: of every other step, why it runs again; empty when the idempotency key was known.
    """

    from_run: str
    steps: int = 0
    items: dict[str, int] = field(default_factory=dict[str, int])
    rerun_steps: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class RegisteredByRun:
    """A model version that a step of a run registered.

    Attributes:
        reference: such as `churn:3`.
        alias: the alias that the step requested for it; None without one.
        promoted: whether the alias was moved; False if the gate refused it.
        clauses: the results of the comparisons of `gate`.
    """

    model: str
    version: int
    reference: str
    step: str
    alias: str | None = None
    promoted: bool | None = None
    gate: str = ""
    clauses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A run.

    Attributes:
        input_models: the registered models among the inputs, such as `churn:3`, by parameter.
        models: the model versions that its steps registered, and whether they were promoted.
        steps: by key; empty in lists, as are inputs and outputs unless the list is requested with `values`.
        requested_by: the principal that requested it, such as `user:ada`, `trigger:nightly` or `run:ID/STEP`.
        created: False when a run with the same idempotency key existed already.
        metrics: only in lists: those that were filtered or sorted by. The same holds for `params`.
        resumed: only returned by `Runs.resume` without `wait`.
        warnings: only of a run that was just submitted, such as steps whose pool has no executor yet.
    """

    run_id: str
    pipeline: str
    version: int
    state: str = "queued"
    project: str = "default"
    created_at: float = 0.0
    finished_at: float | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    trigger: dict[str, str] = field(default_factory=dict[str, str])
    error: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    input_models: dict[str, str] = field(default_factory=dict[str, str])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    models: tuple[RegisteredByRun, ...] = ()
    steps: dict[str, Step] = field(default_factory=dict[str, Step])
    last_seq: int = 0
    created: bool = True
    resumed: Resumed | None = None
    started_at: float | None = None
    duration: float | None = None
    deployment: str | None = None
    requested_by: str = ""
    warnings: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def title(self) -> str:
        """The pipeline with its version; scripts have none."""
        return f"{self.pipeline} v{self.version}" if self.version else self.pipeline

    @property
    def finished(self) -> bool:
        """Whether the run is in a terminal state."""
        return self.state in TERMINAL_STATES

    @property
    def succeeded(self) -> bool:
        """Whether the run finished successfully."""
        return self.state == "succeeded"

    def __repr__(self) -> str:
        why = f", error={self.error!r}" if self.error else ""
        return f"Run({self.run_id!r}, {self.title}, {self.state}{why})"

    def _repr_html_(self) -> str:
        """Return the run and its steps for notebooks, without items of mapped steps."""
        took = "" if self.duration is None or not self.finished else f" in {self.duration:.3g} s"
        headline = (
            f"<b>{html.text(self.title)}</b> {html.state(self.state)}{took} "
            f'<span style="opacity:.65">run {html.text(self.run_id)}</span>'
        )
        steps = [step for step in self.steps.values() if step.item_of is None]
        notes = [html.text(self.error, 500)] if self.error else []
        if len(steps) > _HTML_STEPS:
            notes.append(f"the first {_HTML_STEPS} of {len(steps)} steps")
        rows = [_html_row(step) for step in steps[:_HTML_STEPS]]
        return html.block(headline, notes, ["step", "state", "duration", "metrics"], rows)


def _html_row(step: Step) -> list[str]:
    items = step.items or {}
    counts = f" {items.get('finished', 0)}/{items['count']}" if "count" in items else ""
    counts += f", {items['failed']} failed" if items.get("failed") else ""
    seconds = "" if step.seconds is None else f"{step.seconds:.3g} s"
    metrics = ", ".join(f"{name}={value:.4g}" for name, value in list(step.metrics.items())[:_HTML_METRICS])
    return [html.text(step.key), html.state(step.state) + html.text(counts), seconds, html.text(metrics)]


@dataclass(frozen=True, slots=True)
class AttemptInputs:
    """What an attempt was given.

    Attributes:
        request: the fact `attempt.requested` as JSON: the entrypoint, the inputs as stored values, the variables.
        checkpoint: what `context().restore()` returns, as a stored value; None without one.
        state: the present state of the step.
        source: SHA-256 of the source bundle.
        environment: of the version; implementation, version, digest and packages.
        interpreters: paths of interpreters that had this environment when the version was registered.
    """

    request: dict[str, Any]
    source: str
    environment: dict[str, Any]
    state: str = ""
    checkpoint: dict[str, Any] | None = None
    interpreters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepReason:
    """Why a step is in its state.

    Attributes:
        sentence: the reason, for people.
        caused_by: keys of the steps that are the reason: the unfinished ones it waits for, or the one that prevented
            it from running, followed by the root cause.
        since: None where the time is unknown.
    """

    key: str
    state: str
    sentence: str
    caused_by: tuple[str, ...] = ()
    since: float | None = None

    def __str__(self) -> str:
        return f"{self.key}: {self.sentence}"


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why each step of a run was in its state at the time `at`; by key, in the order of the pipeline."""

    run_id: str
    pipeline: str
    version: int
    state: str
    at: float = 0.0
    steps: dict[str, StepReason] = field(default_factory=dict[str, StepReason])

    def __str__(self) -> str:
        return "\n".join(str(step) for step in self.steps.values())


@dataclass(frozen=True, slots=True)
class Event:
    """A fact of a run: its sequence in the log, its `kind` such as `attempt.finished`, its time and its fields."""

    seq: int
    kind: str
    at: float
    data: dict[str, Any]

    @property
    def key(self) -> str | None:
        """Key of the step, or None for a fact of the whole run."""
        return self.data.get("key")

    def __repr__(self) -> str:
        about = f", {self.key!r}" if self.key else ""
        return f"Event({self.seq}, {self.kind!r}{about})"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a step printed, a metric that it logged (`metric`, `value`), or its progress.

    `step` is the key of the step.
    """

    step: str
    attempt: int
    at: float
    stream: str = ""
    text: str = ""
    metric: str | None = None
    value: Any = None
    seq: int = 0
    progress: Progress | None = None

    def __str__(self) -> str:
        if self.progress is not None:
            return str(self.progress)
        return self.text if self.metric is None else f"{self.metric} = {self.value}"


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview of an output.

    Attributes:
        kind: `table`, `text`, `image`, or `none` with the `reason`.
        size: of the whole output, in bytes.
        facts: properties of the whole output, such as the number of rows.
        columns: of a table, `name` and `type` of each; `rows` are its first rows.
        text: the beginning of a text; `language` names the language of source code.
        picture: of an image, `media_type`, `base64`, `width` and `height` of a thumbnail.
    """

    kind: str
    size: int = 0
    sha256: str = ""
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    truncated: bool = False
    columns: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    rows: list[list[Any]] = field(default_factory=list[list[Any]])
    text: str = ""
    language: str = ""
    picture: dict[str, Any] | None = None
    reason: str = ""


def build(kind: type[_T], data: Mapping[str, Any], **more: Any) -> _T:
    """Build a dataclass from JSON; unknown keys are ignored."""
    names = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in {**data, **more}.items() if name in names})


def get_run(transport: Transport, run_id: str) -> Run:
    """Fetch a run with its steps.

    Raises:
        NotFoundError: there is no such run.
    """
    return parse_run(transport.json("GET", f"/v1/runs/{quote(run_id)}"))


def get_items(transport: Transport, run_id: str, step: str, state: str | None = None) -> Iterator[Item]:
    """Fetch the started items of a mapped step by index, in pages as they are consumed.

    Raises:
        NotFoundError: there is no such run or step.
        RefusedError: the step is not mapped.
    """
    after: int | None = -1
    while after is not None:
        query = {"step": step, "state": state, "after": after, "limit": _ITEMS_PAGE}
        page = transport.json("GET", f"/v1/runs/{quote(run_id)}/items", query=query)
        yield from (parse_item(key, item) for key, item in page["items"].items())
        after = page["next"]


def parse_accepted(data: Mapping[str, Any]) -> Run:
    """Read an accepted request for a run from the API's JSON."""
    resumed = build(Resumed, data["resumed"]) if data.get("resumed") else None
    return build(Run, data, state="queued", resumed=resumed)


def parse_run(data: Mapping[str, Any]) -> Run:
    """Read a run from the API's JSON."""
    steps = {key: parse_step(key, view) for key, view in (data.get("steps") or {}).items()}
    models = tuple(build(RegisteredByRun, row, clauses=tuple(row["clauses"])) for row in data.get("models") or ())
    return build(Run, data, steps=steps, models=models)


def parse_reasons(data: Mapping[str, Any]) -> Reasons:
    """Read the reasons of a run from the API's JSON."""
    rows = [build(StepReason, row, caused_by=tuple(row.get("caused_by") or ())) for row in data.get("steps") or ()]
    return build(Reasons, data, steps={row.key: row for row in rows})


def _numbers(non_finite: Mapping[str, str]) -> dict[str, float]:
    return {name: float(text) for name, text in non_finite.items()}


def parse_detail(data: Mapping[str, Any]) -> StepDetail:
    """Read a step with its inputs and attempts from the API's JSON."""
    history = tuple(build(Attempt, row, error=_error(row)) for row in data["history"])
    return _parse_step(StepDetail, data["key"], data, history=history)


def parse_item(key: str, data: Mapping[str, Any]) -> Item:
    """Read an item of a mapped step from the API's JSON."""
    return _parse_step(Item, key, data)


def parse_step(key: str, data: Mapping[str, Any]) -> Step:
    """Read a step from the API's JSON."""
    return _parse_step(Step, key, data)


def _error(data: Mapping[str, Any]) -> StepError | None:
    return build(StepError, data["error"]) if data.get("error") else None


def _parse_step(kind: type[_S], key: str, data: Mapping[str, Any], **more: Any) -> _S:
    saved, cache, waits = data.get("checkpoint"), data.get("cache"), data.get("waits_for")
    return build(
        kind,
        data,
        key=key,
        metrics={**(data.get("metrics") or {}), **_numbers(data.get("non_finite") or {})},
        error=_error(data),
        checkpoint=build(Checkpoint, saved) if saved else None,
        cache=build(Cache, cache, differs=tuple(cache.get("differs") or ())) if cache else None,
        progress=build(Progress, data["progress"]) if data.get("progress") else None,
        last_failed=build(FailedItem, data["last_failed"]) if data.get("last_failed") else None,
        waits_for=build(WaitsFor, waits, choices=tuple(waits.get("choices") or ())) if waits else None,
        depends_on=tuple(data.get("depends_on") or ()),
        **more,
    )


def parse_log_lines(message: Message) -> Iterator[LogLine]:
    """Read the lines in a message of a run's log stream."""
    if message.event not in ("output", "progress"):
        return
    key, attempt = str(message.data.get("key", "")), int(message.data.get("attempt", 1))
    if message.event == "progress":
        progress = build(Progress, message.data)
        yield LogLine(key, attempt, progress.at, seq=message.id, progress=progress)
    else:
        for entry in message.data.get("entries", ()):
            yield build(LogLine, entry, step=key, attempt=attempt, seq=message.id)
