"""The configuration page documents all settings."""

from __future__ import annotations

from pathlib import Path

from penstock_testkit.docs.settings_page import tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"


def test_every_setting_is_on_the_page_with_its_default() -> None:
    lines = set(PAGE.read_text().splitlines())
    missing = [row for rows in tables().values() for row in rows if row not in lines]
    assert not missing, "regenerate docs/configuration.md with penstock_testkit.docs.settings_page.render()"


def test_every_setting_is_explained() -> None:
    assert [row for rows in tables().values() for row in rows if row.endswith("|  |")] == []
