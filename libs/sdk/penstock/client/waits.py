"""What steps of runs wait for, from Python: questions and their answers, links to them, events.

`Client` has all of this.
"""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from penstock.client import views
from penstock.client.transport import Transport


@dataclass(frozen=True, slots=True)
class Question:
    """An open question of a run. `since` and `until`, when the step gives up, are Unix seconds."""

    run_id: str
    pipeline: str
    step: str
    question: str
    choices: tuple[str, ...] = ()
    attempt: int = 1
    default: str | None = None
    since: float = 0.0
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer that counts; `created` is False when it had been given before."""

    run_id: str
    step: str
    choice: str
    answered_by: str
    comment: str = ""
    answered_at: float = 0.0
    created: bool = True


@dataclass(frozen=True, slots=True)
class AnswerLinks:
    """Addresses with which a question can be answered without the token: one for each choice, and a page with all."""

    run_id: str
    step: str
    question: str
    page: str
    expires_at: float
    choices: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class EventReceipt:
    """An event that the platform has; `delivered_to` are the steps that it ended at once, each as run id and key.

    `duplicate` tells that an event of this id had been sent before, which counts instead.
    """

    id: str
    type: str
    key: str = ""
    duplicate: bool = False
    delivered_to: tuple[tuple[str, str], ...] = ()


class WaitsMixin:
    """The part of `Client` that is about what steps wait for."""

    transport: Transport

    def questions(self, run_id: str | None = None, pipeline: str | None = None) -> list[Question]:
        """Open questions of all runs, or of one run or pipeline; the oldest first."""
        rows = self.transport.json("GET", "/v1/questions", query={"run": run_id, "pipeline": pipeline})["questions"]
        return [views.build(Question, row, choices=tuple(row.get("choices") or ())) for row in rows]

    def answer(self, run_id: str, step: str, choice: str, comment: str = "", *, by: str | None = None) -> Answer:
        """Answer the question of a step; the first answer counts, the same one again changes nothing.

        Args:
            run_id: the run.
            step: key of the step, such as `ask`, `ask[3]` or `features/ask`.
            choice: one of its choices.
            comment: why, for people.
            by: who answers; default the name of the user of this process.

        Raises:
            NotFound: there is no such run or step.
            Refused: it does not wait for an answer, was answered otherwise, or has no such choice.
        """
        body = {"choice": choice, "comment": comment, "by": user() if by is None else by}
        return views.build(Answer, self.transport.json("POST", f"{step_path(run_id, step)}/answer", body=body))

    def answer_links(self, run_id: str, step: str, lifetime: float | None = None) -> AnswerLinks:
        """Links with which others can answer the question of a step, for `lifetime` seconds (default a week).

        Raises:
            NotFound: there is no such run or step.
            Refused: it does not wait for an answer.
        """
        query = {"lifetime": lifetime}
        return views.build(AnswerLinks, self.transport.json("GET", f"{step_path(run_id, step)}/links", query=query))

    def send_event(
        self, type: str, data: Any = None, *, key: str = "", id: str | None = None, source: str = "penstock.Client"
    ) -> EventReceipt:
        """Send an event to the steps that wait for its type and key: now, or later in runs that are there already.

        Args:
            type: such as `com.acme.labels.ready`.
            data: JSON of at most 64 KiB; what the steps give on, a dictionary for those of `wait_for_event`.
            key: which of the events of this type.
            id: the same id is the same event, within a day; default a new one.
            source: who sends it.

        Raises:
            Refused: it is no event.
        """
        event: Mapping[str, Any] = {
            "specversion": "1.0",
            "id": id or secrets.token_hex(16),
            "type": type,
            "source": source,
            "key": key,
            "data": data,
        }
        answer = self.transport.json("POST", "/v1/events", body=event)
        delivered_to = tuple((row["run_id"], row["step"]) for row in answer.get("delivered_to") or ())
        return views.build(EventReceipt, answer, delivered_to=delivered_to)

    def cancel(self, run_id: str, reason: str = "", *, step: str | None = None) -> str | None:
        """Ask to cancel a run, or one step or item of it: what runs is stopped, what waits is skipped.

        Returns:
            How the run or the step had ended, where it was over, so that nothing was done; else None.

        Raises:
            NotFound: there is no such run or step.
        """
        path = step_path(run_id, step) if step is not None else f"/v1/runs/{quote(run_id)}"
        return self.transport.json("POST", f"{path}/cancel", body={"reason": reason, "by": user()})["state"]


def step_path(run_id: str, step: str) -> str:
    """The address of a step."""
    return f"/v1/runs/{quote(run_id)}/steps/{quote(step)}"


def user() -> str:
    """The name of the user of this process, as far as the system knows it."""
    try:
        return getpass.getuser()[:200]
    except (KeyError, OSError):
        return ""
