"""Signed links to questions: created with the platform's token, used without it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import parse_qs

from fastapi import Response

from penstock_contracts.waits import NAME_LIMIT, AnswerAccepted, AnswerBody, AnswerLinks
from penstock_core import access
from penstock_core.access import Principal
from penstock_core.facts import AttemptFinished, StepSuspended
from penstock_core.run.machine import Status
from penstock_core.run.suspension import choices
from penstock_gateway.errors import ConflictError, GatewayError
from penstock_gateway.http import problems
from penstock_gateway.runs import wait_views
from penstock_gateway.runs.run_reader import RunReader
from penstock_gateway.runs.steps import find_step
from penstock_gateway.waits import answers, link_html
from penstock_gateway.waits.answers import Answers
from penstock_gateway.waits.signed_links import InvalidLinkError, Link, Signer

_FORM_FIELDS = {"choice", "name", "comment"}
FORM_LIMIT = 64 * 1024
PATH = "/v1/answers/"


class LinkPages:
    """Creates links, and serves the pages behind them. A link, which is signed, may be to a run of any project."""

    def __init__(self, reader: RunReader, answers: Answers, signer: Signer) -> None:
        self._reader = reader
        self._answers = answers
        self._signer = signer

    async def create(
        self, reader: RunReader, base: str, run_id: str, key: str, lifetime: float, by: str
    ) -> AnswerLinks:
        """Create links to the open question of a step.

        Args:
            reader: of the runs that the principal may see.
            base: URL of the gateway as people reach it.
            run_id: the run.
            key: of the step.
            lifetime: seconds until the links expire, at most the timeout of the question.
            by: the principal that makes them.

        Raises:
            NotFoundError: the run or the step does not exist.
            ConflictError: it has no open question.
        """
        step = (await find_step(reader, run_id, key)).step
        fact = answers.question_of(step, key)
        if step is None or step.status is not Status.SUSPENDED:
            raise ConflictError(f"Step {key!r} no longer waits for an answer", "it has finished")
        latest = time.time() + lifetime
        expires_at = float(int(latest if fact.until is None else min(latest, fact.until)) + 1)

        def url(choice: str | None) -> str:
            link = Link(run_id, key, fact.attempt, choice, expires_at, by)
            return base.rstrip("/") + PATH + self._signer.sign(link)

        return AnswerLinks(
            run_id=run_id,
            step=key,
            attempt=fact.attempt,
            question=wait_views.question(fact),
            expires_at=expires_at,
            page=url(None),
            choices={str(choice): url(str(choice)) for choice in choices(fact)},
        )

    async def get(self, token: str) -> Response:
        """Show the question of a link. Changes nothing, since mail scanners and chat programs also follow links."""
        link = self._read(token)
        if isinstance(link, Response):
            return link
        try:
            run, step = await find_step(self._reader, link.run_id, link.step)
            fact = answers.question_of(step, link.step, link.attempt)
            about = f"{run.requested.pipeline}, step {link.step}, run {link.run_id}"
            end = await self._answers.end_of(fact)
            if end is not None:
                return _answered(end, fact, about)
        except GatewayError as error:
            return _problem(error)
        offered = [str(choice) for choice in choices(fact)] if link.choice is None else [link.choice]
        return link_html.question_page(wait_views.question(fact), about, offered)

    def principal(self, token: str) -> Principal | None:
        """Return who answers through a link; None if it is not valid."""
        link = self._read(token)
        return None if isinstance(link, Response) else access.link(link.made_by)

    async def post(self, token: str, form: bytes) -> Response:
        """Give the answer that a link permits."""
        link = self._read(token)
        if isinstance(link, Response):
            return link
        fields = _fields(form)
        if unknown := sorted(fields.keys() - _FORM_FIELDS):
            return link_html.result_page(422, "This is not an answer", f"The form has unknown fields: {unknown[:5]}.")
        choice = fields.get("choice", link.choice)
        if choice is None or (link.choice is not None and choice != link.choice):
            return link_html.result_page(422, "This is not an answer", "Choose one of the answers on the page.")
        name = fields.get("name", "").strip()
        try:
            if len(name) > NAME_LIMIT:
                raise ValueError(name)
            body = AnswerBody(choice=choice, comment=fields.get("comment", ""))
            by = str(access.link(link.made_by))
            done = await self._answers.answer(link.run_id, link.step, body, by, attempt=link.attempt, signed_as=name)
        except GatewayError as error:
            return _problem(error)
        except ValueError:
            return link_html.result_page(422, "This is not an answer", "The name or the comment is too long.")
        return link_html.result_page(200, f"Thank you. The answer is: {done.choice}", _who(done), f"step {link.step}")

    def _read(self, token: str) -> Link | Response:
        try:
            link = self._signer.read(token)
        except InvalidLinkError:
            why = "It was changed in transit, or the platform's token has changed since. Request a new one."
            return link_html.result_page(403, "This link is invalid", why)
        if link.expires_at < time.time():
            return link_html.result_page(
                410, "This link has expired", f"It was valid until {_time(link.expires_at)}. Request a new one."
            )
        return link


def _fields(form: bytes) -> dict[str, str]:
    try:
        return {name: found[0] for name, found in parse_qs(form.decode(), max_num_fields=20).items()}
    except ValueError:
        return {}


def _answered(end: AttemptFinished, fact: StepSuspended, about: str) -> Response:
    known = answers.answer_of(end)
    return link_html.result_page(
        200, f"Answered already: {known.choice}", f"{wait_views.question(fact)} {_who(known)}", about
    )


def _who(known: AnswerAccepted) -> str:
    at = _time(known.answered_at)
    if known.answered_by == answers.BY_TIME:
        return f"Nobody answered until {at}; the default counts."
    comment = f", with the comment: {known.comment}" if known.comment else ""
    return f"Answered by {answers.author(known)} at {at}{comment}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _problem(error: GatewayError) -> Response:
    status = problems.status_of(error) or 500
    return link_html.result_page(status, problems.TITLES[status], str(error))
