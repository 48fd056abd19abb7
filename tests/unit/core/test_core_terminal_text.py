"""Text of others cannot control a terminal."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import terminal_text
from penstock_core.terminal_text import coloured, printable, printable_json, printable_line, without_colours

DANGEROUS = frozenset(
    chr(code)
    for code in [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    if chr(code) not in "\n\t"
)
RED, RESET = "\x1b[31m", "\x1b[0m"

texts = st.text(st.sampled_from(sorted(DANGEROUS)) | st.characters() | st.sampled_from("\n\t[0;31mJ"))


@given(texts)
def test_no_control_character_is_left(text: str) -> None:
    assert not DANGEROUS & set(printable(text))
    assert not (DANGEROUS | {"\n"}) & set(printable_line(text))
    assert not DANGEROUS & set(without_colours(text))


@given(texts)
def test_only_colours_are_left(text: str) -> None:
    shown = coloured(text)
    assert not DANGEROUS & set(terminal_text._COLOURS.sub("", shown))
    if RED in text:
        assert shown.endswith(RESET), "colours end with their line"


@given(st.recursive(texts, lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_json_keeps_its_value(value: object) -> None:
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert not DANGEROUS & set(text)
    assert json.loads(text) == value


@given(st.text(st.characters(exclude_categories=("Cc", "Cf"))))
def test_other_text_is_unchanged(text: str) -> None:
    assert printable(text) == coloured(text) == without_colours(text) == printable_json(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb\r", "a\nb\\x0d"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("\u202etxt", "\\u202etxt"),
        ("family: \U0001f469\u200d\U0001f467, \u05d0\u200f!", "family: \U0001f469\u200d\U0001f467, \u05d0\u200f!"),
    ],
)
def test_escapes_are_visible(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_colours_stay_and_end_with_their_line() -> None:
    assert coloured(f"{RED}bad{RESET} \x1b[2J") == f"{RED}bad{RESET} \\x1b[2J{RESET}"
    assert coloured("\x1b[8mhidden") == f"\x1b[8mhidden{RESET}"
    assert without_colours(f"{RED}bad{RESET} \x1b[2J") == "bad \\x1b[2J"
