"""What the client gives back: plain frozen data, made from the API's JSON. Times are Unix seconds.

Fields that a newer platform adds are left out, fields that it leaves out take their defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from penstock.client.sse import Message

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "skipped"})

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version of a pipeline. `created` is False when an equal one was there already."""

    pipeline: str
    version: int
    project: str = "default"
    created: bool = False
    digest: str = ""
    source: str = ""
    registered_at: float | None = None
    git: dict[str, Any] | None = None
    steps: int | None = None

    def __repr__(self) -> str:
        return f"Version({self.pipeline!r}, {self.version})"


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
    """What the cache did for a step: see `penstock_core.facts.CacheReport`."""

    hit: bool = False
    key: str = ""
    parts: dict[str, str] = field(default_factory=dict[str, str])
    differs: tuple[str, ...] = ()
    from_run: str = ""
    from_step: str = ""
    stored_at: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last checkpoint of a step: which attempt saved it, when, and its value as JSON."""

    attempt: int
    at: float
    value: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WaitsFor:
    """What a suspended step waits for; fields that its kind does not have are None.

    Attributes:
        until: when it wakes up or gives up; Unix seconds.
        type: of the event; `key` its key.
        run_id: the run that it started, of `pipeline`.
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
    """A step of a run as it stands. `outputs` and `artifacts` hold values as JSON: inline or a reference.

    `items` counts those of a mapped step, by state; `item_of` names the mapped step of an item.
    While an attempt runs, `artifacts` are those that it has stored so far. `checkpoint` is the last one of any attempt.
    `from_run` is the run whose result the step has taken over.
    """

    key: str
    state: str = "waiting"
    attempts: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
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
    item_of: str | None = None

    @property
    def seconds(self) -> float | None:
        """How long the last attempt ran."""
        if not self.started_at or not self.finished_at:
            return None
        return self.finished_at - self.started_at

    def __repr__(self) -> str:
        took = f", {self.seconds:.3f} s" if self.seconds is not None else ""
        return f"Step({self.key!r}, {self.state}{took})"


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a resumed run takes over: `steps` whole, and of mapped steps that run again, how many `items`.

    `rerun_steps` says of each other step why it runs again; empty when the idempotency key had been used before.
    """

    from_run: str
    steps: int = 0
    items: dict[str, int] = field(default_factory=dict[str, int])
    rerun_steps: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Run:
    """A run; `steps` is filled by `Client.get` and `Client.wait`, empty in lists.

    `metrics` and `params` are filled in lists only, with those that were filtered or sorted by; `resumed` only by
    `Client.rerun` without `wait`, for a run that was resumed.
    """

    run_id: str
    pipeline: str
    version: int
    state: str = "queued"
    project: str = "default"
    requested_at: float = 0.0
    finished_at: float | None = None
    labels: dict[str, str] = field(default_factory=dict[str, str])
    trigger: dict[str, str] = field(default_factory=dict[str, str])
    error: str | None = None
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    outputs: dict[str, Any] = field(default_factory=dict[str, Any])
    steps: dict[str, Step] = field(default_factory=dict[str, Step])
    last_seq: int = 0
    created: bool = True
    resumed: Resumed | None = None
    started_at: float | None = None
    duration: float | None = None
    deployment: str | None = None
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    params: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def title(self) -> str:
        """The pipeline with its version; scripts have none."""
        return f"{self.pipeline} v{self.version}" if self.version else self.pipeline

    @property
    def finished(self) -> bool:
        """Whether the run is over."""
        return self.state in TERMINAL_STATES

    @property
    def succeeded(self) -> bool:
        """Whether the run is over and every step it needed succeeded."""
        return self.state == "succeeded"

    def __repr__(self) -> str:
        why = f", error={self.error!r}" if self.error else ""
        return f"Run({self.run_id!r}, {self.title}, {self.state}{why})"


@dataclass(frozen=True, slots=True)
class StepReason:
    """Why a step stands where it stands, in a sentence.

    `caused_by` names the steps that are the reason: the unfinished ones that it waits for, or the one that kept it from
    running, followed by the first cause of that. `since` is None where it is not known.
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
    """Why the steps of a run stand where they stand at the time `at`, by key, in the order of the pipeline."""

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
    """A fact of a run: `kind` such as `attempt.finished`, its place in the log, when it was written, and its fields."""

    seq: int
    kind: str
    at: float
    data: dict[str, Any]

    @property
    def key(self) -> str | None:
        """The step it is about, or None."""
        return self.data.get("key")

    def __repr__(self) -> str:
        about = f", {self.key!r}" if self.key else ""
        return f"Event({self.seq}, {self.kind!r}{about})"


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a step wrote, or a value that it measured (`metric`, `value`). `step` is its key in the run."""

    step: str
    attempt: int
    at: float
    stream: str = ""
    text: str = ""
    metric: str | None = None
    value: Any = None
    seq: int = 0

    def __str__(self) -> str:
        return self.text if self.metric is None else f"{self.metric} = {self.value}"


@dataclass(frozen=True, slots=True)
class Preview:
    """What a result looks like; `kind` is `table`, `text`, `image`, or `none` with the `reason`.

    A table has `columns` (`name`, `type`) and its first `rows`; a text its beginning, as source in `language`; an image
    a `picture` (`media_type`, `base64`, `width`, `height`). `facts` are about the whole, whose `size` is in bytes.
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


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a pipeline runs by itself: `cron` in time zone `tz`; `version` None is the latest at each tick."""

    name: str
    pipeline: str
    cron: str
    version: int | None = None
    tz: str = "UTC"
    inputs: dict[str, Any] = field(default_factory=dict[str, Any])
    paused: bool = False
    project: str = "default"


def build(kind: type[_T], data: Mapping[str, Any], **more: Any) -> _T:
    """An object of a frozen dataclass from JSON; unknown keys are left out."""
    names = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in {**data, **more}.items() if name in names})


def accepted(data: Mapping[str, Any]) -> Run:
    """A run that was asked for, from the API's JSON."""
    resumed = build(Resumed, data["resumed"]) if data.get("resumed") else None
    return build(Run, data, state="queued", resumed=resumed)


def parse_run(data: Mapping[str, Any]) -> Run:
    """A run from the API's JSON."""
    steps = {key: parse_step(key, view) for key, view in (data.get("steps") or {}).items()}
    return build(Run, data, steps=steps)


def parse_reasons(data: Mapping[str, Any]) -> Reasons:
    """The reasons of a run from the API's JSON."""
    rows = [build(StepReason, row, caused_by=tuple(row.get("caused_by") or ())) for row in data.get("steps") or ()]
    return build(Reasons, data, steps={row.key: row for row in rows})


def parse_step(key: str, data: Mapping[str, Any]) -> Step:
    """A step from the API's JSON."""
    error = build(StepError, data["error"]) if data.get("error") else None
    saved, cache, waits = data.get("checkpoint"), data.get("cache"), data.get("waits_for")
    return build(
        Step,
        data,
        key=key,
        error=error,
        checkpoint=build(Checkpoint, saved) if saved else None,
        cache=build(Cache, cache, differs=tuple(cache.get("differs") or ())) if cache else None,
        waits_for=build(WaitsFor, waits, choices=tuple(waits.get("choices") or ())) if waits else None,
        depends_on=tuple(data.get("depends_on") or ()),
    )


def parse_log_lines(message: Message) -> Iterator[LogLine]:
    """The lines in a message of a run's log."""
    if message.event == "output":
        key, attempt = str(message.data.get("key", "")), int(message.data.get("attempt", 1))
        for entry in message.data.get("entries", ()):
            yield build(LogLine, entry, step=key, attempt=attempt, seq=message.id)
