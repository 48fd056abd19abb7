"""`Environment(…)`: where requirements come from, and what a compiled pipeline declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from penstock import DefinitionError, Environment, pipeline, step

torch = Environment("torch", ["attrs>=23"], python="3.12")
base = Environment("base", ["pandas"])


@step(environment=torch)
def train() -> int:
    return 1


@step
def report(value: int) -> int:
    return value


@pipeline(environment=base)
def training() -> Any:
    return report(train())


@pipeline
def without() -> Any:
    return report(report.with_options(name="again", environment=torch)(1))


def declared(**given: Any) -> Any:
    return Environment("e", **given).declaration()


def test_steps_run_in_their_environment_or_in_that_of_the_pipeline() -> None:
    compiled = training.compile()
    assert {name: spec.environment for name, spec in compiled.steps.items()} == {"train": "torch", "report": "base"}
    assert {one.name: one.python for one in compiled.environments}["torch"] == "3.12"
    assert sorted(one.name for one in compiled.environments) == ["base", "torch"]
    again = without.compile()
    assert {spec.name: spec.environment for spec in again.steps.values()} == {"report": None, "again": "torch"}


@step(environment=Environment("torch", ["attrs<23"]))
def other() -> int:
    return 1


@pipeline
def both() -> None:
    train()
    other()


def test_two_environments_with_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two environments have the name 'torch'"):
        both.compile()


def test_a_requirements_file_with_other_files_comments_hashes_and_indexes(tmp_path: Path) -> None:
    (tmp_path / "limits.txt").write_text("numpy<3\n")
    (tmp_path / "base.txt").write_text("# base\nattrs\n-r requirements.txt\n")
    (tmp_path / "requirements.txt").write_text(
        "--index-url https://host/simple\n--extra-index-url=https://more/simple\n-r base.txt\n"
        "-c limits.txt\npandas>=2 \\\n    --hash=sha256:ab  # tables\n"
    )
    found = declared(requirements=tmp_path / "requirements.txt")
    assert found.requirements == ("attrs", "pandas>=2")
    assert found.constraints == ("numpy<3",)
    assert (found.index, found.extra_indexes) == ("https://host/simple", ("https://more/simple",))


def test_a_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["attrs"]\n[project.optional-dependencies]\nplots = ["matplotlib"]\n'
    )
    assert declared(project=tmp_path, extras=["plots"]).requirements == ("attrs", "matplotlib")
    with pytest.raises(DefinitionError, match="no optional dependencies 'gpu'"):
        declared(project=tmp_path, extras=["gpu"])
    (tmp_path / "uv.lock").write_text("version = 1\n")
    found = declared(project=tmp_path)
    assert (found.requirements, found.uv_lock) == ((), "version = 1\n")
    (tmp_path / "pyproject.toml").write_text("[project")
    (tmp_path / "uv.lock").unlink()
    with pytest.raises(DefinitionError, match="environment 'e'"):
        declared(project=tmp_path)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Environment("a b"), "environment 'a b' is not valid"),
        (lambda: Environment("a", [1]), "requirements must be a list of names"),  # type: ignore[list-item]
        (lambda: Environment("a", python=3.12), "python must be a string"),  # type: ignore[arg-type]
        (lambda: Environment("a", ["x"], project="."), "either requirements or a project"),
        (lambda: Environment("a", extras=["x"]), "extras requires project"),
        (lambda: step(environment="a"), "must be an Environment"),  # type: ignore[call-overload]
        (lambda: Environment("a", "missing.txt").declaration(), "missing.txt"),
        (lambda: Environment("a", ["-e ."]).declaration(), "is an option"),
    ],
)
def test_wrong_arguments_are_refused_at_the_users_line(make: Any, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason) as caught:
        make()
    assert "test_sdk_environments.py:" in str(caught.value)


def test_options_of_the_image(tmp_path: Path) -> None:
    found = declared(base="python:3.12-slim", system=["libgomp1"], platforms=["linux/arm64"]).image
    assert (found.base, found.system, found.platforms) == ("python:3.12-slim", ("libgomp1",), ("linux/arm64",))
    (tmp_path / "Dockerfile").write_text("FROM a\n")
    assert declared(dockerfile=tmp_path / "Dockerfile").image.dockerfile == "FROM a\n"
    with pytest.raises(DefinitionError, match="has no FROM"):
        (tmp_path / "Dockerfile").write_text("RUN a\n")
        declared(dockerfile=tmp_path / "Dockerfile")
    with pytest.raises(DefinitionError, match="Dockerfile"):
        declared(dockerfile=tmp_path / "missing" / "Dockerfile")
