"""Links to questions: made for those who have the platform's token, used by those who have a link."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import parse_qs

from starlette.responses import Response

from penstock_contracts.waits import AnswerAccepted, AnswerBody, AnswerLinks
from penstock_core.facts import AttemptFinished, StepSuspended
from penstock_core.run.machine import Status
from penstock_core.run.suspension import choices
from penstock_gateway.http.problems import ProblemError
from penstock_gateway.service import GatewayService
from penstock_gateway.steps import step_actions
from penstock_gateway.waits import answers, link_html, wait_views
from penstock_gateway.waits.signed_links import InvalidLinkError, Link, Signer

FORM_LIMIT = 64 * 1024
PATH = "/v1/answers/"


async def make(
    service: GatewayService, signer: Signer, base: str, run_id: str, key: str, lifetime: float
) -> AnswerLinks:
    """Links to the question that a step asks now; `base` is where people reach the gateway.

    Raises:
        ProblemError: 404 no such run or step; 409 it asks nothing now.
    """
    step = (await step_actions.find(service, run_id, key)).step
    fact = answers.asked(step, key)
    if step is None or step.status is not Status.SUSPENDED:
        raise ProblemError(409, f"Step {key!r} does not wait for an answer any more", "there is nothing to link to")
    latest = time.time() + lifetime
    expires_at = float(int(latest if fact.until is None else min(latest, fact.until)) + 1)

    def url(choice: str | None) -> str:
        return base.rstrip("/") + PATH + signer.sign(Link(run_id, key, fact.attempt, choice, expires_at))

    return AnswerLinks(
        run_id=run_id,
        step=key,
        attempt=fact.attempt,
        question=wait_views.question(fact),
        expires_at=expires_at,
        page=url(None),
        choices={str(choice): url(str(choice)) for choice in choices(fact)},
    )


async def page(service: GatewayService, signer: Signer, token: str) -> Response:
    """What a link shows. Looking changes nothing: programs that check links for people follow them, too."""
    link = _read(signer, token)
    if isinstance(link, Response):
        return link
    try:
        run, step = await step_actions.find(service, link.run_id, link.step)
        fact = answers.asked(step, link.step, link.attempt)
        about = f"{run.requested.pipeline}, step {link.step}, run {link.run_id}"
        end = await answers.ended(service, fact)
        if end is not None:
            return _ended(end, fact, about)
    except ProblemError as error:
        return _problem(error)
    offered = [str(choice) for choice in choices(fact)] if link.choice is None else [link.choice]
    return link_html.asked(wait_views.question(fact), about, offered)


async def post(service: GatewayService, signer: Signer, token: str, form: bytes) -> Response:
    """Answer with what a link allows."""
    link = _read(signer, token)
    if isinstance(link, Response):
        return link
    fields = _fields(form)
    choice = fields.get("choice", link.choice)
    if choice is None or (link.choice is not None and choice != link.choice):
        return link_html.result_page(422, "This is no answer", "Choose one of the answers on the page of the link.")
    try:
        body = AnswerBody(choice=choice, by=fields.get("by", ""), comment=fields.get("comment", ""))
        done = await answers.answer(service, link.run_id, link.step, body, attempt=link.attempt, link=True)
    except ProblemError as error:
        return _problem(error)
    except ValueError:
        return link_html.result_page(422, "This is no answer", "The name or the comment is too long.")
    return link_html.result_page(200, f"Thank you. The answer is: {done.choice}", _who(done), f"step {link.step}")


def _read(signer: Signer, token: str) -> Link | Response:
    try:
        link = signer.read(token)
    except InvalidLinkError:
        why = "It was changed on its way, or the platform's token has changed since. Ask for a new one."
        return link_html.result_page(403, "This link is not valid", why)
    if link.expires_at < time.time():
        return link_html.result_page(
            410, "This link has expired", f"It could be used until {_time(link.expires_at)}. Ask for a new one."
        )
    return link


def _fields(form: bytes) -> dict[str, str]:
    try:
        return {name: found[0] for name, found in parse_qs(form.decode(), max_num_fields=20).items()}
    except ValueError:
        return {}


def _ended(end: AttemptFinished, fact: StepSuspended, about: str) -> Response:
    known = answers.answer_of(end)
    return link_html.result_page(
        200, f"Answered already: {known.choice}", f"{wait_views.question(fact)} {_who(known)}", about
    )


def _who(known: AnswerAccepted) -> str:
    at = _time(known.answered_at)
    if known.answered_by == answers.BY_TIME:
        return f"Nobody had answered by {at}, so that the default counts."
    comment = f", who says: {known.comment}" if known.comment else ""
    return f"Answered by {known.answered_by} at {at}{comment}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _problem(error: ProblemError) -> Response:
    return link_html.result_page(error.status, error.title, error.detail)
