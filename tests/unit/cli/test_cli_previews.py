"""Previews on a terminal: file contents cannot control the terminal."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from penstock.client.views import Preview
from penstock_cli.display import previews
from penstock_cli.errors import UsageError


def test_a_table_keeps_its_column_names_and_truncates_cells(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [{"name": "nAme", "type": "int64"}, {"name": "x\x1b[31m", "type": ""}]
    found = Preview("table", size=2048, columns=columns, rows=[[1, "y" * 50], [None, "a\nb"]], facts={"row_groups": 1})
    previews.show(found, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "row groups 1, 2.0 kB"
    assert lines[1].startswith("nAme (int64)  x\\x1b[31m")
    assert lines[2].split() == ["1", "y" * 39 + "…"]
    assert lines[3].split() == ["a", "b"]


def test_wide_tables_are_truncated(capsys: pytest.CaptureFixture[str]) -> None:
    found = Preview("table", columns=[{"name": f"c{n}"} for n in range(30)], rows=[list(range(30))])
    previews.show(found, None)
    lines = capsys.readouterr().out.splitlines()
    assert (lines[1].split()[-1], lines[2].split()[-1], lines[-1]) == ("c11", "11", "…")


def test_control_characters_of_text_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    previews.show(Preview("text", text="a\tb\n\x1b]0;title\x07\x9b2J\n", truncated=True), None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "a\tb",
        "\\x1b]0;title\\x07\\x9b2J",
        "…",
    ]


def test_thumbnails_are_written_when_available(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = {"media_type": "image/png", "base64": base64.b64encode(b"png").decode(), "width": 1, "height": 1}
    found = Preview("image", picture=picture)
    previews.write_picture(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == b"png"
    previews.show(found, tmp_path / "a.png")
    assert "thumbnail in" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no thumbnail, the preview is damaged"):
        previews.write_picture(Preview("none", reason="damaged"), tmp_path / "b.png")
