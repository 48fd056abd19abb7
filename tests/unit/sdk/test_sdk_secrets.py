"""The options `secrets` and `env_from`, warnings about `env`, and how steps find secrets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock import context, pipeline, step, testing
from penstock.authoring import secret_options
from penstock.runner import given_secrets, workers
from penstock.step_context import contexts
from penstock_core.errors import DefinitionError


@step(secrets={"DB_PASSWORD": "secret:db", "KEY": "secret:pem@2#file"}, env_from=["HF_TOKEN"])
def fit(n: int) -> int:
    return n


@step(secrets=["db", "secret:pem@2"], env={"API_KEY": "correct-horse", "DEPTH": "3"})
def load() -> int:
    return len(context().secret("db"))


@pipeline
def training() -> None:
    fit(load())


@pipeline
def loading() -> Any:
    return load()


def test_uses_are_references_in_the_compiled_pipeline() -> None:
    steps = training.compile().steps
    assert steps["fit"].secrets == ("DB_PASSWORD=secret:db", "KEY=secret:pem@2#file", "env:HF_TOKEN")
    assert steps["load"].secrets == ("secret:db", "secret:pem@2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"secrets": {"DB": "hunter2-value"}}, "must be a reference such as 'secret:NAME'"),
        ({"secrets": {"DB": 3}}, "secrets must be a list of names, or a dictionary"),
        ({"secrets": {"A B": "secret:db"}}, "'A B' is not the name of an environment variable"),
        ({"secrets": {"PENSTOCK_HOME": "secret:db"}}, "PENSTOCK_HOME is reserved"),
        ({"secrets": ["a b"]}, "must be a reference"),
        ({"secrets": ["db", "db@2"]}, "two versions of the secret 'db'"),
        ({"env_from": "HOME"}, "env_from must be a list of names"),
        ({"env_from": ["A B"]}, "env_from: 'A B' is not the name"),
        ({"env_from": ["PENSTOCK_TOKEN"]}, "PENSTOCK_TOKEN is reserved"),
    ],
)
def test_wrong_options_are_refused_without_showing_a_value(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        step(**options)
    assert message in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_variable_is_set_once() -> None:
    for second in ({"secrets": {"A": "secret:db"}}, {"env_from": ["A"]}):
        options: Any = {"secrets": None, "env_from": None, "env": {"A": "1"}, **second}
        with pytest.raises(DefinitionError, match="sets A both by env and by a secret"):
            _compiled(fit.with_options(**options))
    with pytest.raises(DefinitionError, match="A is given by a secret and passed through"):
        _compiled(fit.with_options(secrets={"A": "secret:db"}, env_from=["A"]))


def _compiled(changed: Any) -> None:
    @pipeline
    def small() -> None:
        changed(1)

    small.compile()


def test_values_in_env_that_look_like_secrets_are_named_in_a_warning() -> None:
    [warning] = secret_options.secret_warnings(training.compile())
    assert "env 'API_KEY' of step 'load' looks like a secret" in warning
    assert 'secrets={"API_KEY": "secret:api_key"}' in warning and "correct-horse" not in warning


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("DB_PASSWORD", "hunter2", True),
        ("apikey", "hunter2", True),
        ("URL", "postgres://user:hunter2@db/x", True),
        ("URL", "https://example.org/path?x=1", False),
        ("X", "ghp_" + "a1B2" * 9, True),
        ("X", "AKIA" + "ABCDEFGHIJ123456", True),
        ("X", "-----BEGIN RSA PRIVATE KEY-----\nabc", True),
        ("X", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", True),
        ("X", "q7Zt0Vw3Kp9Xr2Lm5Nb8Yc1Da4", True),
        ("MODEL", "bert-base-multilingual-uncased-sentiment", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("TOKEN", "", False),
        ("KEYBOARD", "qwerty-layout", False),
        ("OMP_NUM_THREADS", "1", False),
        ("SHA", "0" * 64, False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: str, secret: bool) -> None:
    assert secret_options.looks_secret(name, value) is secret


def test_local_runs_and_tests_read_secrets_from_variables_or_are_given_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_SECRET_DB", raising=False)
    with pytest.raises(LookupError, match="set the environment variable PENSTOCK_SECRET_DB"):
        context().secret("db")
    monkeypatch.setenv("PENSTOCK_SECRET_DB", "hunter2!")
    assert load() == 8
    assert loading.local() == 8
    with testing.isolate(secrets={"db": "four"}):
        assert load() == 4
        with pytest.raises(LookupError, match=r"the step does not declare it \(its secrets: 'db'\)"):
            context().secret("other")


def test_a_step_gets_variables_files_and_values(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("A", "B", "C"):
        monkeypatch.setenv(name, "before")
    values = {
        "A=secret:db": "hunter2!",
        "B=secret:pem@2#file": "line 1\nline 2\n",
        "secret:x": "y" * 9,
        "env:C": "passed",
    }
    by_name = given_secrets.give(values)
    assert by_name == {"db": "hunter2!", "pem": "line 1\nline 2\n", "x": "y" * 9}
    assert (os.environ["A"], os.environ["C"]) == ("hunter2!", "passed")
    file = Path(os.environ["B"])
    assert file.read_text() == "line 1\nline 2\n" and file.stat().st_mode & 0o777 == 0o400
    assert subprocess.check_output(["cat", str(file)]) == b"line 1\nline 2\n"


def test_processes_of_a_step_find_its_secrets_and_their_description_has_no_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(contexts.WORKER_VARIABLE, "")
    names = {"run_id": "r1", "key": "fit", "attempt": 1, "pipeline": "p", "project": "default"}
    order = {"attempt": names, "artifacts": str(tmp_path), "secrets": {"db": "hunter2!"}}
    workers.announce(order, str(tmp_path / "base"))
    assert "hunter2" not in os.environ[contexts.WORKER_VARIABLE]
    code = "from penstock import context; print(context().secret('db'))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "hunter2!\n"
