"""What steps wait for outside their runs, over HTTP: questions and their answers, events, runs of other pipelines."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock_contracts.bodies import RequestBody

NAME_LIMIT = 200
COMMENT_LIMIT = 2000


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class WaitView(_Model):
    """What a suspended step waits for: an answer (`ask`), an `event`, a time (`sleep`) or the end of a `run`.

    `until` is when it wakes up or times out, in Unix seconds; null: no timeout.
    """

    kind: Literal["ask", "event", "sleep", "run"]
    attempt: int
    since: float
    until: float | None = None
    question: str | None = None
    choices: list[str] = Field(default_factory=list)
    default: str | None = Field(default=None, description="the answer at the timeout")
    type: str | None = Field(default=None, description="of the event")
    key: str | None = Field(default=None, description="of the event")
    run_id: str | None = Field(default=None, description="the child run")
    pipeline: str | None = Field(default=None, description="of the child run")


class Question(_Model):
    """An open question of a run: its text, its choices, since when, and its timeout."""

    run_id: str
    pipeline: str
    step: str
    attempt: int
    question: str
    choices: list[str]
    default: str | None = None
    since: float
    until: float | None = None


class QuestionList(_Model):
    """Open questions, oldest first. `after` continues the list, if there are more."""

    questions: list[Question]
    after: int | None = None


class AnswerBody(RequestBody):
    """An answer to a question of a step: one of its choices, and a comment."""

    choice: str = Field(max_length=10_000)
    comment: str = Field(default="", max_length=COMMENT_LIMIT)


class AnswerAccepted(_Model):
    """The answer that counts; `created` is false if it was given before."""

    run_id: str
    step: str
    attempt: int
    choice: str
    answered_by: str = Field(description="the principal; `link:…` names who made the link")
    comment: str = ""
    signed_as: str = Field(default="", description="name typed by the user of a link; not verified")
    answered_at: float
    created: bool = True


class AnswerLinks(_Model):
    """URLs at which anyone can answer the question without the platform's token.

    `page` offers all choices; `choices` has one URL for each.
    """

    run_id: str
    step: str
    attempt: int
    question: str
    expires_at: float
    page: str
    choices: dict[str, str]


class StepCancelResult(_Model):
    """The step; `state` is that of a finished step, and null if the cancel was requested."""

    run_id: str
    step: str
    state: str | None = None


class EventAccepted(_Model):
    """The event is stored. `duplicate`: an event with this source and ID was stored before, and counts instead.

    `sequence` is its place in the stream, `digest` identifies the event in decisions.
    """

    id: str
    source: str
    type: str
    sequence: int
    digest: str
    duplicate: bool = False


class EventsAccepted(_Model):
    """All events of a batch are stored, in the order of the request."""

    events: list[EventAccepted]
