"""Secrets over HTTP: set, listed, limited, deleted, and never returned."""

from __future__ import annotations

import asyncio
import time

import pytest
from gateway_platform import Http, Platform

from penstock_contracts.secrets import SetSecretBody

pytestmark = pytest.mark.asyncio(loop_scope="module")

VALUE = "correct-horse-battery"


async def test_a_secret_is_set_listed_limited_and_deleted_and_never_returned(http: Http) -> None:
    answers = [await http("PUT", "/v1/secrets/db", {"value": VALUE})]
    assert answers[0].status == 200
    secret = answers[0].json()
    assert (secret["name"], secret["source"], [one["number"] for one in secret["versions"]]) == ("db", "store", [1])
    assert secret["versions"][0]["created_by"].startswith("token:")
    answers.append(await http("PUT", "/v1/secrets/db", {"value": f"{VALUE}-2"}))
    answers.append(await http("PUT", "/v1/secrets/db/users", {"pipelines": ["train"], "deployments": ["nightly"]}))
    answers.append(await http("GET", "/v1/secrets/db"))
    found = answers[-1].json()
    assert (found["pipelines"], found["deployments"], len(found["versions"])) == (["train"], ["nightly"], 2)
    answers.append(await http("GET", "/v1/secrets"))
    assert answers[-1].json() == {"secrets": [found]}
    answers.append(await http("POST", "/v1/secrets/rotate-key", {"drop_old": True}))
    assert answers[-1].json()["encrypted"] == 2
    assert all(answer.status == 200 and VALUE not in answer.body.decode() for answer in answers)
    assert (await http("DELETE", "/v1/secrets/db/versions/1")).status == 204
    assert (await http("DELETE", "/v1/secrets/db/versions/1")).status == 404
    assert (await http("DELETE", "/v1/secrets/db")).status == 204
    assert (await http("DELETE", "/v1/secrets/db")).status == 404
    assert (await http("GET", "/v1/secrets/db")).status == 404
    assert (await http("PUT", "/v1/secrets/db/users", {})).status == 404


@pytest.mark.parametrize("value", ["abc", "x" * 32769, "é" * 20000, "abcd\0", 123456, None, ["secret-in-a-list"]])
async def test_a_refused_value_is_not_in_the_answer(http: Http, value: object) -> None:
    answer = await http("PUT", "/v1/secrets/odd", {"value": value})
    assert answer.status == 422
    assert "secret-in" not in answer.body.decode() and "123456" not in answer.body.decode()
    assert len(answer.body) < 1000
    assert (await http("GET", "/v1/secrets/odd")).status == 404


async def test_a_value_is_not_in_the_text_form_of_its_body() -> None:
    assert VALUE not in repr(SetSecretBody(value=VALUE))


async def test_names_are_checked(http: Http) -> None:
    assert (await http("PUT", "/v1/secrets/a.b", {"value": VALUE})).status == 422
    assert (await http("GET", "/v1/secrets/a.b")).status == 404
    assert (await http("DELETE", "/v1/secrets/a.b")).status == 404


async def test_a_secret_of_the_operator_cannot_be_set(platform: Platform, http: Http) -> None:
    # The folder of `gateway_platform`.
    folder = platform.root.with_name(f"{platform.root.name}-secrets") / "default"
    folder.mkdir(parents=True)
    (folder / "mounted").write_text(f"{VALUE}\n")
    [found] = (await http("GET", "/v1/secrets")).json()["secrets"]
    assert (found["name"], found["source"], found["versions"]) == ("mounted", "files", [])
    for method, path, body in [
        ("PUT", "/v1/secrets/mounted", {"value": VALUE}),
        ("PUT", "/v1/secrets/mounted/users", {}),
        ("DELETE", "/v1/secrets/mounted", None),
    ]:
        answer = await http(method, path, body)
        assert answer.status == 409 and "source 'files'" in answer.body.decode()


async def test_setting_a_secret_is_audited_without_its_value(http: Http) -> None:
    await http("PUT", "/v1/secrets/audited", {"value": VALUE})
    viewer = (await http("POST", "/v1/tokens", {"name": "secret-viewer", "role": "viewer"})).json()["token"]
    assert (await http("PUT", "/v1/secrets/audited", {"value": VALUE}, token=viewer)).status == 403
    assert (await http("GET", "/v1/secrets/audited", token=viewer)).status == 200
    deadline = time.monotonic() + 30
    while True:
        answer = await http("GET", "/v1/audit?operation=set_secret")
        entries = [one for one in answer.json()["entries"] if one["path"] == "/v1/secrets/audited"]
        if len(entries) == 2:
            break
        assert time.monotonic() < deadline, entries
        await asyncio.sleep(0.1)
    assert {(one["outcome"], one["status"]) for one in entries} == {("allowed", 200), ("refused", 403)}
    assert VALUE not in answer.body.decode()


async def test_a_secret_belongs_to_its_project(http: Http) -> None:
    other = {"penstock-project": "other"}
    assert (await http("PUT", "/v1/projects/other", {})).status in (200, 201)
    assert (await http("PUT", "/v1/secrets/mine", {"value": VALUE})).status == 200
    assert (await http("GET", "/v1/secrets", headers=other)).json() == {"secrets": []}
    assert (await http("GET", "/v1/secrets/mine", headers=other)).status == 404
    assert (await http("DELETE", "/v1/secrets/mine", headers=other)).status == 404
    assert (await http("PUT", "/v1/secrets/mine", {"value": VALUE}, headers=other)).json()["versions"][0]["number"] == 1
    assert len((await http("GET", "/v1/secrets/mine")).json()["versions"]) == 1
    body = {"name": "editor-of-default", "role": "admin"}
    token = (await http("POST", "/v1/tokens", body)).json()["token"]
    assert (await http("POST", "/v1/secrets/rotate-key", {}, token=token)).status == 403
