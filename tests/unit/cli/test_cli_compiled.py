"""A registered pipeline without its source: its outline, and inputs parsed by its parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock_cli.errors import UsageError
from penstock_cli.runs import compiled
from penstock_core.errors import InputError
from penstock_core.pipeline import ir

COMPILED: dict[str, Any] = {
    "name": "f",
    "params": [],
    "steps": {"s": {"entrypoint": "m:s", "retry": {"retries": 2, "on": ["OSError"], "new": 1}, "new": 2}},
    "nodes": [
        {"key": "a", "step": "s", "inputs": {"x": {"param": "n"}, "y": {"value": {"node": "no"}}}, "after": []},
        {
            "key": "b",
            "step": "s",
            "inputs": {"x": {"items": [{"node": "a", "output": "r"}, {"fields": {"k": {"node": "c", "output": "r"}}}]}},
            "after": ["a", "d"],
            "mapped": {"over": ["x"], "window": 7, "min_success": 0.5, "new": 3},
            "rule": "all_done",
            "phase": "on_exit",
        },
    ],
    "outputs": {},
}


def test_the_outline_shows_dependencies_and_retries() -> None:
    outline = compiled.outline(COMPILED)
    assert [ir.dependencies(node) for node in outline.nodes] == [[], ["a", "c", "d"]]
    assert outline.steps["s"].retry == ir.Retry(retries=2, on=("OSError",))


def test_the_outline_shows_mapped_and_closing_steps() -> None:
    first, second = compiled.outline(COMPILED).nodes
    assert (first.mapped, first.rule, first.phase) == (None, ir.Rule.ALL_SUCCEEDED, ir.Phase.MAIN)
    assert second.mapped == ir.MapSpec(over=("x",), window=7, min_success=0.5)
    assert (second.rule, second.phase) == (ir.Rule.ALL_DONE, ir.Phase.ON_EXIT)


SCHEMAS: dict[str, Any] = {
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "text": {"type": "string"},
    "flag": {"type": "boolean"},
    "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
    "choice": {"enum": ["a", "b"]},
    "rows": {"type": "array", "items": {"type": "integer"}},
    "prices": {"type": "array", "items": {"type": ["string", "number"], "format": "decimal"}},
    "anything": None,
}
PARAMS = [{"name": name, "type": "", "schema": schema} for name, schema in SCHEMAS.items()]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("count=3", 3),
        ("count=true", True),
        ("count=x", "x"),
        ("ratio=3", 3.0),
        ("ratio=.5", 0.5),
        ("count=+5", 5),
        ("ratio=0.5", 0.5),
        ("text=3", "3"),
        ("text=@home", "@home"),
        ("text=a=b", "a=b"),
        ('text="quoted"', '"quoted"'),
        ('either="4"', "4"),
        ("prices=[1.10]", ["1.10"]),
        ("flag=true", True),
        ("flag=False", False),
        ("maybe=None", None),
        ("maybe=4", 4),
        ("either=4", 4),
        ("either=four", "four"),
        ("choice=b", "b"),
        ("rows=[1, 2]", [1, 2]),
        ("anything=[1]", [1]),
        ("anything=word", "word"),
        ("unknown=5", 5),
    ],
)
def test_text_is_parsed_by_parameter_type(given: str, value: object) -> None:
    found = compiled.parse(PARAMS, [given])
    assert list(found.values()) == [value]
    assert type(next(iter(found.values()))) is type(value)


def test_a_value_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([1, 2]))
    assert compiled.parse(PARAMS, [f"rows=@{tmp_path}/rows.json"]) == {"rows": [1, 2]}
    with pytest.raises(InputError, match="cannot read"):
        compiled.parse(PARAMS, [f"rows=@{tmp_path}/none.json"])


def test_a_path_must_be_an_existing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text("1")
    monkeypatch.chdir(tmp_path)
    params = [{"name": "source", "schema": {"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]}}]
    assert compiled.parse(params, ["source=a.csv"]) == {"source": tmp_path / "a.csv"}
    with pytest.raises(InputError, match="no such file or folder"):
        compiled.parse(params, ["source=b.csv"])


@pytest.mark.parametrize(("given", "words"), [(["n"], "NAME=VALUE"), (["count=1", "count=2"], "given more than once")])
def test_unknown_option_formats_are_rejected(given: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        compiled.parse(PARAMS, given)
