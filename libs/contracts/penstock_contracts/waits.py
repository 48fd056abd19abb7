"""What steps wait for outside their runs, over HTTP: questions and their answers, events, runs of other pipelines."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_LIMIT = 200
COMMENT_LIMIT = 2000


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class WaitView(_Model):
    """What a suspended step waits for: an answer (`ask`), an `event`, a time (`sleep`) or the end of a `run`.

    `until` is when it wakes up or gives up, in Unix seconds; null: it waits without end.
    """

    kind: Literal["ask", "event", "sleep", "run"]
    attempt: int
    since: float
    until: float | None = None
    question: str | None = None
    choices: list[str] = Field(default_factory=list)
    default: str | None = Field(default=None, description="the answer when the time is over")
    type: str | None = Field(default=None, description="of the event")
    key: str | None = Field(default=None, description="of the event")
    run_id: str | None = Field(default=None, description="the run that it started")
    pipeline: str | None = Field(default=None, description="of that run")


class Question(_Model):
    """An open question of a run: what is asked, what can be answered, since when, and until when."""

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
    """Open questions, the oldest first."""

    questions: list[Question]


class AnswerBody(_Model):
    """An answer to a question of a step: one of its choices, by whom, and why."""

    choice: str = Field(max_length=10_000)
    by: str = Field(default="", max_length=NAME_LIMIT, description="who answers, for people")
    comment: str = Field(default="", max_length=COMMENT_LIMIT)


class AnswerAccepted(_Model):
    """The answer that counts; `created` is False when it had been given before."""

    run_id: str
    step: str
    attempt: int
    choice: str
    answered_by: str
    comment: str = ""
    answered_at: float
    created: bool = True


class AnswerLinks(_Model):
    """Addresses at which the question can be answered without the platform's token, by whoever has them.

    `page` offers all choices; `choices` has an address for each of them.
    """

    run_id: str
    step: str
    attempt: int
    question: str
    expires_at: float
    page: str
    choices: dict[str, str]


class StepCancelResult(_Model):
    """The step; `state` says how it ended when it was over before, and is null when the cancel was asked for."""

    run_id: str
    step: str
    state: str | None = None


class DeliveredStep(_Model):
    """An attempt that an event ended."""

    run_id: str
    step: str
    attempt: int


class EventAccepted(_Model):
    """The event is stored. `duplicate`: one of this id was stored before, and counts instead.

    `delivered_to` are the steps that waited for it; others may come to wait for it later.
    """

    id: str
    type: str
    key: str = ""
    at: float
    duplicate: bool = False
    delivered_to: list[DeliveredStep] = Field(default_factory=list[DeliveredStep])
