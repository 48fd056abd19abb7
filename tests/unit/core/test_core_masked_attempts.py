"""What an attempt writes and reports, without the values of its secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock_core.queries.series import Point
from penstock_core.secrets import given
from penstock_core.secrets.given import GivenSecrets
from penstock_core.secrets.masking import MASK, Masker
from penstock_core.secrets.records import SecretError
from penstock_core.shipping.masking import IN_OUTPUT, MaskedTail, mask_end
from penstock_core.shipping.messages import Entry, Message
from penstock_core.shipping.progress import Report
from penstock_core.shipping.shipper import Shipper

VALUE = "correct-horse-battery"
MASKER = Masker([VALUE])
SHA = "0" * 64


class Files:
    """The files of an attempt: what each look finds."""

    def __init__(self, *looks: list[Entry]) -> None:
        self._looks = list(looks)

    @property
    def exhausted(self) -> bool:
        return not self._looks

    def entries(self, *, last: bool = False) -> list[Entry]:
        return self._looks.pop(0) if self._looks else []

    def points(self, *, last: bool = False) -> list[Point]:
        return [Point(f"loss/{VALUE}", 1, 2.0, 0.5), Point("loss", 1, 2.0, 0.5)]

    def commits(self, *, last: bool = False) -> list[Entry]:
        ref = {"artifact": {"sha256": SHA, "filename": "artifact"}}
        return [
            {"at": 1.0, "artifact": VALUE, "value": ref},
            {"at": 1.0, "checkpoint": True, "value": {"value": {"password": VALUE}}},
        ]

    def progress(self, *, last: bool = False) -> Report | None:
        return Report(1.0, 1.0, 2.0, f"connects with {VALUE}")


class Outbox:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.commits: list[Entry] = []

    def publish(self, message: Message) -> None:
        self.messages.append(message)

    def commit(self, attempt: tuple[str, str, int], body: Entry) -> None:
        self.commits.append(body)


def text(part: str) -> Entry:
    return {"at": 5.0, "stream": "output", "text": part}


def test_everything_that_is_shipped_is_masked_also_what_is_split() -> None:
    looks = [
        [text(f"a {VALUE}\nb correct-ho")],
        [{"at": 1.0, "param": "p", "value": {"key": VALUE}}, {"at": 1.0, "tag": VALUE, "value": VALUE}, text("rse")],
        [text("-battery\nc correct")],
    ]
    outbox = Outbox()
    shipper = Shipper(("r1", "fit", 1), MaskedTail(Files(*looks), MASKER), outbox)
    while not shipper.poll(last=True):
        pass
    shipped = b"".join(message.body for message in outbox.messages).decode() + json.dumps(outbox.commits)
    assert VALUE not in shipped and MASK in shipped
    entries = [entry for message in outbox.messages for entry in json.loads(message.body).get("entries", [])]
    assert "".join(entry.get("text", "") for entry in entries) == f"a {MASK}\nb {MASK}\nc correct"
    assert {entry["at"] for entry in entries if "text" in entry} == {5.0}
    assert SHA in shipped and '"loss"' in shipped


def end(**fields: Any) -> dict[str, Any]:
    return {"run_id": "r1", "key": "fit", "attempt": 1, "outcome": "succeeded", **fields}


def test_an_end_without_a_value_is_unchanged() -> None:
    whole = end(
        outputs={"result": {"value": [1, "x"]}, "data": {"artifact": {"sha256": SHA, "size": 3}}},
        params={"depth": 3},
        metrics={"loss": 0.5},
        tags={"stage": "a"},
        models=[{"model": "m", "artifact": {"sha256": SHA}, "tags": {}}],
        events=[{"type": "done", "data": {"n": 1}, "key": ""}],
    )
    assert mask_end(whole, MASKER) == whole


def test_what_an_end_tells_is_masked() -> None:
    failed = end(
        outcome="failed",
        error={"type": "ValueError", "bases": ["Exception"], "message": f"no {VALUE}", "traceback": f"x = {VALUE!r}"},
        params={"password": VALUE, VALUE: [VALUE]},
        metrics={VALUE: 0.5},
        non_finite={VALUE: "nan"},
        tags={VALUE: VALUE},
        artifacts={VALUE: {"value": VALUE}, "file": {"artifact": {"sha256": SHA}}},
        models=[{"model": "m", "artifact": {"sha256": SHA}, "description": VALUE, "tags": {"t": VALUE}}],
    )
    masked = mask_end(failed, MASKER)
    assert VALUE not in json.dumps(masked)
    assert masked["error"]["message"] == f"no {MASK}" and masked["outcome"] == "failed"
    assert masked["metrics"] == {MASK: 0.5} and masked["artifacts"]["file"] == {"artifact": {"sha256": SHA}}


@pytest.mark.parametrize(
    "leaking",
    [
        {"outputs": {"result": {"value": VALUE}}},
        {"outputs": {"result": {"value": {"deep": [f"postgres://u:{VALUE}@h"]}}}},
        {"outputs": {"result": {"items": [{"value": 1}, {"fields": {"a": {"value": VALUE}}}]}}},
        {"events": [{"type": "done", "data": {"key": VALUE}, "key": ""}]},
        {"events": [{"type": "done", "data": None, "key": VALUE}]},
    ],
)
def test_a_step_that_returns_or_sends_a_value_fails(leaking: dict[str, Any]) -> None:
    masked = mask_end(end(**leaking), MASKER)
    assert (masked["outcome"], masked["error"]["type"], masked["outputs"]) == ("failed", IN_OUTPUT, {})
    assert VALUE not in json.dumps(masked)


@pytest.mark.parametrize("word", ["value", "artifact", "succeeded", "outcome", "sha256"])
def test_a_value_that_is_a_word_of_the_format_does_not_break_it(word: str) -> None:
    whole = end(outputs={"data": {"artifact": {"sha256": SHA}}}, params={"a": word})
    masked = mask_end(whole, Masker([word]))
    assert masked["outcome"] == "succeeded" and masked["outputs"] == whole["outputs"]
    assert masked["params"] == {"a": MASK}


def test_the_secrets_of_a_step_are_bounded_together_and_not_shown() -> None:
    found = given.give({"A=secret:db": VALUE})
    assert found and VALUE not in repr(found) and json.loads(found.encoded()) == {"A=secret:db": VALUE}
    assert not GivenSecrets() and GivenSecrets().encoded() == b""
    with pytest.raises(SecretError, match="together they may have 64 KiB"):
        given.give({f"secret:s{number}": "x" * 30_000 for number in range(3)})
