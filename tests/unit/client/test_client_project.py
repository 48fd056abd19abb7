"""Which project a client works in."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import Client
from penstock.client import project
from penstock.errors import ClientError
from penstock.step_context.contexts import Context, use_context


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PENSTOCK_PROJECT", raising=False)
    return tmp_path


def test_without_a_name_it_is_the_default_project() -> None:
    assert project.current() == ""
    assert Client("http://127.0.0.1:1").project == "default"


def test_precedence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "penstock.yaml").write_text("project: from-file\ndeployments: {}\n")
    assert Client("http://127.0.0.1:1").project == "from-file"
    monkeypatch.setenv("PENSTOCK_PROJECT", "from-variable")
    assert project.current() == "from-variable"
    with use_context(Context(run_id="01abc", project="of-run")):
        assert project.current() == "of-run"
        assert project.current("given") == "given"
    with use_context(Context()):  # a step that is called outside of a run
        assert project.current() == "from-variable"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("project: team # ours\n", "team"),
        ("project: 'team'\r\n", "team"),
        ('deployments:\n  a: {pipeline: p}\nproject: "team"\n', "team"),
        ("deployments:\n  project: {pipeline: p}\n", ""),
        ("projects: team\n", ""),
        ("\x00", ""),
    ],
)
def test_the_file_of_the_folder(folder: Path, text: str, name: str) -> None:
    (folder / "penstock.yaml").write_bytes(text.encode())
    assert project.current() == name


def test_a_name_that_is_none_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_PROJECT", "a/b")
    with pytest.raises(ClientError, match="PENSTOCK_PROJECT: 'a/b' is not the name of a project"):
        project.current()
    monkeypatch.delenv("PENSTOCK_PROJECT")
    (folder / "penstock.yaml").write_text("project: ../x\n")
    with pytest.raises(ClientError, match=r"penstock\.yaml: '../x' is not the name of a project"):
        project.current()
