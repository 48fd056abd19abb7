"""Signed links to questions: created with the token, used without it, invalid once changed, used or expired."""

from __future__ import annotations

import html
import time
from urllib.parse import quote, urlencode, urlsplit

import pytest
from gateway_platform import TOKEN, Answer, Http, Platform

from penstock_core.facts import AttemptFinished, ErrorInfo, Outcome, StepSuspended
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline
from penstock_gateway.waits.signed_links import InvalidLinkError, Link, Signer

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = """</h1><script>alert("x")</script> Publish 'a' & "b"?"""


@pytest.fixture(scope="module")
def registered() -> list[bool]:
    return []


async def asks(
    platform: Platform, registered: list[bool], question: str = "Publish?", choices: tuple[str, ...] = ("yes", "no")
) -> str:
    """A run whose step asks a question."""
    if not registered:
        spec = ir.StepSpec(name="ask", entrypoint="", kind=ir.Kind.ASK, outputs=(ir.Port(name="result"),))
        pipeline = ir.Pipeline(name="linked", steps={"ask": spec}, nodes=(ir.Node(key="ask", step="ask"),))
        await platform.add_version(pipeline)
        registered.append(True)
    run_id = await platform.request("linked", requested_at=time.time())
    inputs = {"question": Inline(question), "choices": Inline(list(choices))}
    await platform.log.append([StepSuspended(run_id=run_id, key="ask", attempt=1, kind=ir.Kind.ASK, inputs=inputs)])
    return run_id


async def links(http: Http, run_id: str, query: str = "") -> dict[str, str]:
    """Return the URLs of all links by choice; that of the page with all choices as `page`."""
    answer = await http("GET", f"/v1/runs/{run_id}/steps/ask/links{query}")
    assert answer.status == 200, answer.body
    found = answer.json()
    return {name: urlsplit(url).path for name, url in {**found["choices"], "page": found["page"]}.items()}


async def post(http: Http, path: str, **fields: str) -> Answer:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return await http("POST", path, urlencode(fields).encode(), token=None, headers=headers)


async def finished(platform: Platform, run_id: str) -> AttemptFinished | None:
    facts = [record.fact for record in await platform.log.read(run_id)]
    return next((fact for fact in facts if isinstance(fact, AttemptFinished)), None)


async def test_a_signed_link_answers_without_a_token(platform: Platform, http: Http, registered: list[bool]) -> None:
    run_id = await asks(platform, registered)
    found = await links(http, run_id)
    assert set(found) == {"yes", "no", "page"}
    assert (await http("GET", f"/v1/runs/{run_id}/steps/ask/links", token=None)).status == 401
    shown = await http("GET", found["yes"], token=None)
    page = shown.body.decode()
    assert shown.status == 200 and shown.headers["content-type"] == "text/html; charset=utf-8"
    assert "Publish?" in page and 'value="yes"' in page and 'value="no"' not in page
    policy = shown.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "form-action 'self'" in policy and "unsafe" not in policy
    assert "http" not in page.replace(run_id, ""), "nothing comes from elsewhere"
    assert await finished(platform, run_id) is None, "looking does nothing"
    done = await post(http, found["yes"], choice="yes", name="Ada", comment="fine")
    assert done.status == 200 and "Thank you. The answer is: yes" in done.body.decode()
    fact = await finished(platform, run_id)
    assert fact is not None and fact.outputs == {"result": Inline("yes")}
    assert fact.params == {"answered_by": "link:token:default", "comment": "fine", "signed_as": "Ada"}
    # Once used: the same answer is idempotent, another one is rejected, and the page shows the answer.
    assert (await post(http, found["yes"], choice="yes")).status == 200
    other = await post(http, found["page"], choice="no")
    assert other.status == 409 and html.escape("by link:token:default, signed 'Ada' (fine)") in other.body.decode()
    shown = await http("GET", found["page"], token=None)
    assert shown.status == 200 and "Answered already: yes" in shown.body.decode()
    assert (await http("GET", f"/v1/runs/{run_id}/steps/ask/links")).status == 409


async def test_the_answer_page_shows_escaped_choices(platform: Platform, http: Http, registered: list[bool]) -> None:
    run_id = await asks(platform, registered, HOSTILE, ('"><b>yes', "no"))
    found = await links(http, run_id)
    page = (await http("GET", found["page"], token=None)).body.decode()
    assert "<script" not in page and "<b>" not in page
    assert html.escape(HOSTILE) in page and f'value="{html.escape(chr(34) + "><b>yes")}"' in page
    assert (await post(http, found["page"])).status == 422
    assert (await post(http, found["page"], choice="maybe")).status == 422
    assert (await post(http, found["no"], choice='"><b>yes')).status == 422, "a link for one choice gives no other"
    assert (await post(http, found["no"], name="x" * 300)).status == 422
    assert await finished(platform, run_id) is None
    done = await post(http, found["no"], name="<i>")
    assert done.status == 200 and "&lt;i&gt;" in done.body.decode()


async def test_a_form_with_an_unknown_field_is_refused(platform: Platform, http: Http, registered: list[bool]) -> None:
    run_id = await asks(platform, registered)
    path = (await links(http, run_id))["page"]
    refused = await post(http, path, choice="yes", coment="misspelt")
    assert refused.status == 422 and "coment" in refused.body.decode()
    assert await finished(platform, run_id) is None


async def test_invalid_links(platform: Platform, http: Http, registered: list[bool]) -> None:
    run_id = await asks(platform, registered)
    path = (await links(http, run_id))["no"]
    head, _, token = path.rpartition("/")
    payload, _, signature = token.partition(".")
    other = Signer(TOKEN).sign(Link(run_id, "ask", 1, "yes", time.time() + 60, "user:ada")).partition(".")[0]
    forged = Signer("another").sign(Link(run_id, "ask", 1, "yes", time.time() + 60, "user:ada"))
    flipped = signature[:-2] + ("A" if signature[-2] != "A" else "B") + signature[-1]
    wrong = [f"{other}.{signature}", forged, f"{payload}.{flipped}", payload, f"{payload}.", "x", "é.é", "." * 50]
    for bad in wrong:
        for answer in (await http("GET", f"{head}/{quote(bad)}", token=None), await post(http, f"{head}/{quote(bad)}")):
            assert answer.status == 403 and "This link is invalid" in answer.body.decode(), bad
    expired = Signer(TOKEN).sign(Link(run_id, "ask", 1, "yes", time.time() - 1, "user:ada"))
    for answer in (await http("GET", f"{head}/{expired}", token=None), await post(http, f"{head}/{expired}")):
        assert answer.status == 410 and "has expired" in answer.body.decode()
    gone = Signer(TOKEN).sign(Link("no-such-run", "ask", 1, "yes", time.time() + 60, "user:ada"))
    assert (await http("GET", f"{head}/{gone}", token=None)).status == 404
    earlier = Signer(TOKEN).sign(Link(run_id, "ask", 2, "yes", time.time() + 60, "user:ada"))
    assert (await post(http, f"{head}/{earlier}")).status == 409
    assert await finished(platform, run_id) is None
    # All other routes still require the token.
    for beside in ("/v1/answers", "/v1/answers/", "/v1/answers/../questions", "/v1//answers/x", "/v1/questions"):
        assert (await http("GET", beside, token=None)).status in (401, 404), beside
    error = ErrorInfo(type="Cancelled", message="the run was cancelled")
    end = AttemptFinished(run_id=run_id, key="ask", attempt=1, outcome=Outcome.CANCELLED, error=error)
    await platform.log.append([end])
    for answer in (await http("GET", path, token=None), await post(http, path)):
        assert answer.status == 409 and "the run was cancelled" in answer.body.decode()


async def test_link_expiry(platform: Platform, http: Http, registered: list[bool]) -> None:
    run_id = await asks(platform, registered)
    answer = await http("GET", f"/v1/runs/{run_id}/steps/ask/links?lifetime=60")
    assert 50 < answer.json()["expires_at"] - time.time() < 62
    assert answer.json()["page"].startswith(f"http://127.0.0.1:{http.port}/v1/answers/")
    for wrong in ("0", "-5", "1e9", "x"):
        assert (await http("GET", f"/v1/runs/{run_id}/steps/ask/links?lifetime={wrong}")).status == 422


async def test_unsigned_parameters_are_ignored() -> None:
    signer = Signer("secret")
    link = Link("run", "features/split[3]", 2, None, 1_800_000_000.0, "user:ada")
    token = signer.sign(link)
    assert signer.read(token) == link and quote(token) == token
    for at in range(len(token)):
        for letter in "A.-":
            changed = token[:at] + letter + token[at + 1 :]
            if changed == token:
                continue
            try:
                assert signer.read(changed) == link, "other spellings of the last bits mean the same"
            except InvalidLinkError:
                continue
    with pytest.raises(InvalidLinkError):
        signer.read("A" * 20_000)
