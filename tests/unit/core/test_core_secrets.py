"""References to secrets, who may use them, and the masking of values."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_core.secrets import records, references
from penstock_core.secrets.masking import MASK, MaskedStream, Masker
from penstock_core.secrets.records import (
    SecretError,
    SecretRecord,
    SecretRefusedError,
    SecretUser,
    SecretValue,
    SecretVersion,
)
from penstock_core.secrets.references import InvalidReferenceError, SecretReference, SecretUse

NAMES = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_-]{0,20}\Z")
REFERENCES = st.builds(SecretReference, NAMES, st.none() | st.integers(1, 10**8))
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0*"), min_size=8, max_size=60).filter(
    lambda value: len(value.strip()) >= 8
)
PLAIN = st.text(st.characters(codec="ascii", exclude_characters="*"), max_size=40)


@given(REFERENCES)
def test_a_reference_is_read_as_it_was_written(reference: SecretReference) -> None:
    assert references.parse(str(reference)) == reference


@given(st.builds(SecretUse, REFERENCES, st.sampled_from(["", "DB_PASSWORD", "_x1"]), st.booleans()))
def test_a_use_is_read_as_it_was_written(use: SecretUse) -> None:
    assert references.parse_use(str(use)) == use


@pytest.mark.parametrize(
    "text", ["hunter2", "secret:", "secret:a b", "secret:a@", "secret:a@0", "secret:a@1x", "secret:a\n"]
)
def test_what_is_no_reference_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        references.parse(text)
    assert text not in str(caught.value) or text == "secret:"


@pytest.mark.parametrize("variable", ["", "1A", "A B", "A-B", "PENSTOCK_HOME"])
def test_variables_that_cannot_be_set_are_refused(variable: str) -> None:
    with pytest.raises(InvalidReferenceError):
        references.check_variable(variable)


def test_uses_that_contradict_each_other_are_refused() -> None:
    one = references.parse_use("A=secret:x")
    references.check_uses([one, references.parse_use("B=secret:x#file"), references.parse_use("secret:y")])
    for other, message in [
        ("A=secret:y", "two secrets are given in the variable A"),
        ("B=secret:x@2", "two versions of the secret 'x' are used"),
    ]:
        with pytest.raises(InvalidReferenceError, match=message):
            references.check_uses([one, references.parse_use(other)])
    with pytest.raises(InvalidReferenceError, match="at most 32"):
        references.check_uses(SecretUse(SecretReference(f"s{n}")) for n in range(33))


def record(**fields: object) -> SecretRecord:
    return SecretRecord(project="p", name="db", **fields)  # type: ignore[arg-type]


def test_a_secret_is_for_its_project_and_for_those_that_it_names() -> None:
    train, nightly = SecretUser(project="p", pipeline="train"), SecretUser(project="p", deployment="nightly")
    record().check(train)
    record(pipelines=("train",)).check(train)
    record(pipelines=("train",), deployments=("nightly",)).check(nightly)
    for limited, user in [
        (record(), SecretUser(project="other", pipeline="train")),
        (record(pipelines=("train",)), SecretUser(project="other", pipeline="train")),
        (record(pipelines=("eval",)), train),
        (record(deployments=("train",)), train),
        (record(pipelines=("nightly",)), nightly),
    ]:
        with pytest.raises(SecretRefusedError, match="secret 'db' may not be used by"):
            limited.check(user)
    with pytest.raises(SecretRefusedError, match="a rule of the project, or a Git source that does not name"):
        record(deployments=("nightly",)).check(SecretUser(project="p"))


def test_a_version_is_the_named_one_or_the_latest() -> None:
    some = record(versions=(SecretVersion(number=2), SecretVersion(number=4)), last=5)
    assert (some.find(None), some.find(2)) == (4, 2)
    for version in (1, 3, 5):
        with pytest.raises(SecretError, match=f"no version {version} \\(its versions: 2, 4\\)"):
            some.find(version)


@pytest.mark.parametrize("value", ["", "abc", "x" * 32769, "é" * 20000, "abcd\0", "abcd\ud800"])
def test_values_that_cannot_be_secrets_are_refused(value: str) -> None:
    with pytest.raises(SecretError) as caught:
        records.check_value(value)
    assert not value or value not in str(caught.value)


def test_a_value_is_not_shown() -> None:
    assert "hunter2" not in f"{SecretValue(value='hunter2')!r} {[SecretValue(value='hunter2')]} {Masker(['hunter2'])!r}"


ENCODINGS = {
    "plain": lambda value: value,
    "stripped": str.strip,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 in a longer text": lambda value: base64.b64encode(f"user:{value}@host".encode()).decode(),
    "base64 in another": lambda value: base64.urlsafe_b64encode(f"x{value}y".encode()).decode(),
    "hexadecimal": lambda value: value.encode().hex(),
    "upper-case hexadecimal": lambda value: value.encode().hex().upper(),
    "URL": lambda value: quote(value, safe=""),
    "path of a URL": quote,
    "query of a URL": quote_plus,
    "JSON": lambda value: json.dumps({"password": value}),
    "JSON with its letters": lambda value: json.dumps({"password": value}, ensure_ascii=False),
    "JSON in JSON": lambda value: json.dumps(json.dumps(value)),
    "repr": lambda value: repr({"password": value}),
    "repr of bytes": lambda value: repr(value.encode()),
}


def core(value: str, encoded: str) -> str:
    """What of an encoded value must not be left: all of it but the digits at its edges."""
    inner = encoded.strip("\"'{}: ")
    return inner[8:-8] if len(inner) > 24 else inner


@pytest.mark.parametrize("name", ENCODINGS)
@settings(max_examples=40)
@given(value=VALUES, before=PLAIN, after=PLAIN)
def test_encoded_values_are_masked(name: str, value: str, before: str, after: str) -> None:
    encoded = ENCODINGS[name](value)
    masked = Masker([value]).text(before + encoded + after)
    assert MASK in masked
    assert value not in masked
    assert encoded not in masked
    if "base64" not in name:
        assert len(masked) <= len(before + after) + len(json.dumps({"password": MASK}))


@given(st.lists(VALUES, min_size=1, max_size=3), st.lists(PLAIN, max_size=4), st.randoms(use_true_random=False))
def test_a_text_is_masked_in_chunks_as_it_is_at_once(values: list[str], plain: list[str], random: object) -> None:
    pieces = [*values, *values, *plain]
    random.shuffle(pieces)  # type: ignore[attr-defined]
    text = "".join(pieces)
    stream = MaskedStream(Masker(values))
    shown, at = "", 0
    while at < len(text):
        step = random.randint(1, 12)  # type: ignore[attr-defined]
        shown += stream.feed(text[at : at + step])
        assert all(value not in shown for value in values)
        at += step
    shown += stream.feed("", last=True)
    assert not stream.pending
    assert all(value not in shown for value in values)
    assert shown.replace(MASK, "") == Masker(values).text(text).replace(MASK, "")


@given(st.text(max_size=200))
def test_a_text_without_a_value_is_unchanged_and_shown_at_the_end(text: str) -> None:
    masker = Masker(["correct horse battery staple"])
    stream = MaskedStream(masker)
    assert masker.text(text) == text or "correct" in text
    assert stream.feed(text) + stream.feed("", last=True) == masker.text(text)


def test_the_beginning_of_a_value_waits_and_a_line_without_one_does_not() -> None:
    stream = MaskedStream(Masker(["hunter2-secret"]))
    assert stream.feed("epoch 1\n") == "epoch 1\n"
    assert stream.feed("token: hunt") == "token: "
    assert stream.feed("er\n") == "hunter\n"
    assert stream.feed("hunter2-sec") == ""
    assert stream.feed("ret!") == f"{MASK}!"


def test_a_value_that_begins_another_one_is_masked_with_it() -> None:
    stream = MaskedStream(Masker(["abcdefgh", "abcdefghIJKLMNOP"]))
    assert stream.feed("abcdefgh") + stream.feed("IJKLMNOP.") == f"{MASK}."


def test_a_value_of_repetitions_does_not_gather_the_whole_output() -> None:
    stream = MaskedStream(Masker(["abababab"]))
    shown = [stream.feed("ab" * 500) for _ in range(50)]
    assert sum(map(len, shown)) <= 50 * len(MASK)
    assert stream.pending
    assert len(stream.feed("", last=True)) <= len(MASK)


PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nAQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"


def test_each_line_of_a_value_is_masked() -> None:
    masker = Masker([PEM])
    assert masker.text(PEM) == MASK
    assert masker.text("  MIIEvQIBADANBgkqhkiG9w0B\r\n") == f"  {MASK}\r\n"
    assert masker.text("the key MIIEvQIB") == "the key MIIEvQIB"


@pytest.mark.parametrize("width", [76, 64])
def test_base64_in_lines_is_masked(width: int) -> None:
    """As `echo $TOKEN | base64` and `base64.encodebytes` print it."""
    value = "".join(f"<{n}>" for n in range(60))
    digits = base64.b64encode(f"{value}\n".encode()).decode()
    lines = [digits[at : at + width] for at in range(0, len(digits), width)]
    shown = Masker([value]).text("\n".join(lines)).splitlines()
    assert shown[:-1] == [MASK] * (len(lines) - 1)
    assert len(shown[-1].removeprefix(MASK)) <= 4


def test_texts_of_a_json_document_are_masked() -> None:
    value = json.dumps({"user": "svc", "keys": [{"private_key": PEM, "password": "correct-horse"}]})
    masker = Masker([value])
    assert masker.text("it is correct-horse") == f"it is {MASK}"
    assert "MIIE" not in masker.text(PEM)
    assert masker.text("svc") == "svc"


def test_json_is_masked_with_its_names_and_numbers() -> None:
    masker = Masker(["48151623", "hunter2!"])
    data = {"a": ["x hunter2!", 48151623, 1.5, True, None], "hunter2!": {"b": (1, "y")}}
    assert masker.json(data) == {"a": [f"x {MASK}", MASK, 1.5, True, None], MASK: {"b": [1, "y"]}}
    assert masker.found_in(data)
    assert not masker.found_in({"a": [1, "x"]})


def test_values_too_short_to_mask_are_left() -> None:
    assert not Masker(["abc", ""])
    assert Masker(["abc"]).text("abc") == "abc"


@pytest.mark.parametrize(
    "value", ["x" * 32768, "ab" * 16384, "\n".join(f"{n:020}" for n in range(1500)), json.dumps([["%/é"] * 3000])]
)
def test_large_values_are_masked_in_bounded_time(value: str) -> None:
    began = time.process_time()
    masker = Masker([value])
    stream = MaskedStream(masker)
    text = "plain text, " * 2000 + value[:-1]
    stream.feed(text)
    stream.feed(text)
    stream.feed("", last=True)
    assert time.process_time() - began < 10


def test_deep_data_is_refused_or_masked_without_a_crash() -> None:
    value = "[" * 5000 + '"hunter2!"' + "]" * 5000
    assert Masker([value]).text(f"<{value}>") == f"<{MASK}>"
