"""Questions that steps ask (`ask`), and their answers: `Client.questions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote

from penstock.client import views
from penstock.client.http.transport import Transport

_PAGE = 1000
"""Questions in one response."""


@dataclass(frozen=True, slots=True)
class Question:
    """An open question of a run.

    Attributes:
        step: key of the step that asks.
        default: the answer that the step takes at `until`, if it has one.
        since: when it was asked; Unix seconds.
        until: when the step times out; Unix seconds, None for never.
    """

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
    """The recorded answer to a question.

    Attributes:
        answered_by: the principal, such as `user:ada`; for an answer through a link `link:` and who made the link.
        signed_as: the name that the user of a link typed; it is not verified.
        created: False when the same answer had been recorded before.
    """

    run_id: str
    step: str
    choice: str
    answered_by: str
    comment: str = ""
    answered_at: float = 0.0
    signed_as: str = ""
    created: bool = True


@dataclass(frozen=True, slots=True)
class AnswerLinks:
    """Signed URLs that answer a question without the token: one for each choice, and a page with all choices."""

    run_id: str
    step: str
    question: str
    page: str
    expires_at: float
    choices: dict[str, str] = field(default_factory=dict[str, str])


class Questions:
    """`Client.questions`: list and answer the questions that steps ask."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(
        self, run_id: str | None = None, pipeline: str | None = None, *, limit: int | None = None
    ) -> list[Question]:
        """Return the open questions, oldest first: of all runs, of one run, or of one pipeline.

        Args:
            run_id: only of this run.
            pipeline: only of this pipeline.
            limit: most questions; None: all.
        """
        found: list[Question] = []
        after: int | None = 0
        while after is not None and (limit is None or len(found) < limit):
            most = _PAGE if limit is None else min(_PAGE, limit - len(found))
            query = {"run": run_id, "pipeline": pipeline, "limit": most, "after": after}
            page = self._transport.json("GET", "/v1/questions", query=query)
            found += [views.build(Question, row, choices=tuple(row.get("choices") or ())) for row in page["questions"]]
            after = page.get("after")
        return found

    def answer(self, run_id: str, step: str, choice: str, comment: str = "") -> Answer:
        """Answer the question of a step. The first answer counts; repeating the same answer is idempotent.

        Args:
            run_id: the run.
            step: key of the step, such as `ask`, `ask[3]` or `features/ask`.
            choice: one of the question's choices.
            comment: free text, stored with the answer.

        Raises:
            NotFoundError: there is no such run or step.
            RefusedError: the step waits for no answer, was answered differently, or has no such choice.
        """
        body = {"choice": choice, "comment": comment}
        return views.build(Answer, self._transport.json("POST", f"{_step_path(run_id, step)}/answer", body=body))

    def links(self, run_id: str, step: str, lifetime: float | None = None) -> AnswerLinks:
        """Create links with which others can answer the question of a step without the token.

        Args:
            run_id: the run.
            step: key of the step.
            lifetime: seconds until the links expire; default a week.

        Raises:
            NotFoundError: there is no such run or step.
            RefusedError: the step waits for no answer.
        """
        query = {"lifetime": lifetime}
        return views.build(AnswerLinks, self._transport.json("GET", f"{_step_path(run_id, step)}/links", query=query))


def _step_path(run_id: str, step: str) -> str:
    return f"/v1/runs/{quote(run_id)}/steps/{quote(step)}"
