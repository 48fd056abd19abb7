"""`-p name=value`, `--label`, `--timeout`: text is converted to values, errors have hints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import pipeline, step
from penstock_cli import arguments
from penstock_cli.errors import UsageError
from penstock_cli.runs import compiled, inputs
from penstock_core.errors import InputError


@step
def use(value: Any) -> int:
    return 1


@pipeline
def training(
    count: int = 1,
    rate: float = 0.5,
    name: str = "x",
    flag: bool = False,
    depths: list[int] = [2],  # noqa: B006
    maybe: str | None = None,
    source: Path | None = None,
    anything: Any = None,
):
    return use([count, rate, name, flag, depths, maybe, source, anything])


@pipeline
def demanding(count: int, name: str, rate: float = 1.0):
    return use([count, name, rate])


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("count=3", 3),
        ("count=-3", -3),
        ("rate=1e-3", 0.001),
        ("name=3", "3"),
        ("name=", ""),
        ("name=a=b", "a=b"),
        ("name=@home", "@home"),
        ("flag=true", True),
        ("depths=[2, 4]", [2, 4]),
        ("maybe=3", "3"),
        ("anything=[1]", [1]),
        ("anything=one", "one"),
    ],
)
def test_text_is_parsed_by_type_hint(given: str, value: object) -> None:
    assert inputs.parse(training, [given]) == {given.partition("=")[0]: value}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["count=three"], r'inputs\.count: expected int, got "three"'),
        (["count=3.5"], r"inputs\.count: expected int, got 3\.5"),
        (["cuont=3"], r"inputs\.cuont: unknown parameter .*did you mean 'count'"),
        (["zzz=3"], r"inputs\.zzz: unknown parameter \(parameters: count, rate"),
        (["count"], "expected NAME=VALUE"),
        (["count=1", "count=2"], "given more than once"),
        (["depths=@/no/such/file"], "cannot read /no/such/file"),
        (["source=nothing.csv"], r"'source': no such file or folder: /.*nothing\.csv"),
    ],
)
def test_invalid_input_is_reported(given: list[str], message: str) -> None:
    with pytest.raises((InputError, UsageError), match=message):
        inputs.parse(training, given)


@pytest.mark.parametrize("text", ["churn@champion", "churn:3"])
@pytest.mark.parametrize("name", ["source", "depths"])
def test_an_input_that_looks_like_a_model_says_how_to_pass_one(name: str, text: str) -> None:
    with pytest.raises(InputError, match=f"to pass a registered model, write -p {name}=model:{text}$"):
        inputs.parse(training, [f"{name}={text}"])
    with pytest.raises(InputError, match=f"write -p a=model:{text}$"):
        compiled.parse([{"name": "a", "schema": {"type": "string", "format": "path"}}], [f"a={text}"])


@pytest.mark.parametrize("given", ["source=missing.csv", "depths=a@b@c", "depths=x", "count=3@"])
def test_other_wrong_inputs_do_not_mention_models(given: str) -> None:
    with pytest.raises(InputError) as raised:
        inputs.parse(training, [given])
    assert "registered model" not in str(raised.value)


def test_missing_inputs_are_reported_with_file_and_line() -> None:
    missing = r"inputs\.count: missing, expected int; inputs\.name: missing, expected str"
    expected = rf"test_cli_inputs\.py:\d+: .*{missing}: add -p count=… -p name=…"
    with pytest.raises(InputError, match=expected):
        inputs.parse(demanding, ["rate=1"])


def test_a_value_can_be_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "depths.json").write_text("[1, 2]")
    assert inputs.parse(training, [f"depths=@{tmp_path / 'depths.json'}"]) == {"depths": [1, 2]}


def test_a_path_is_relative_to_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.csv").touch()
    assert inputs.parse(training, ["source=some.csv"]) == {"source": tmp_path / "some.csv"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("10m", 600), ("2h", 7200), ("1d", 86400), ("3s", 3)]
)
def test_durations(text: str, seconds: float) -> None:
    assert arguments.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1", "0", "ten", "5x", "nan", "inf", "1e99"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        arguments.parse_duration(text)


def test_labels() -> None:
    assert arguments.parse_pairs("--label", ["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(UsageError, match="NAME=VALUE"):
        arguments.parse_pairs("--label", ["a"])
