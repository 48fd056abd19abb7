"""The secrets of an attempt: variables of the executor that are passed through."""

from __future__ import annotations

from typing import Any, cast

import pytest

from penstock_core.facts import AttemptRequested
from penstock_core.secrets.records import SecretError
from penstock_executor.step_secrets import StepSecrets


async def test_a_variable_that_is_not_text_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python shows bytes that are no UTF-8 as lone surrogates, and its error about them has the whole value."""
    monkeypatch.setenv("BINARY", "hunter2\udcff")
    attempt = AttemptRequested(
        run_id="r", key="s", attempt=1, pool="p", project="d", pipeline="x", version=1, entrypoint="m:f",
        secrets=("env:BINARY",),
    )  # fmt: skip
    with pytest.raises(SecretError, match="the variable BINARY of the executor is not text") as refused:
        await StepSecrets(cast("Any", None), lambda _: True).given(attempt)
    assert "hunter2" not in repr(refused.value)
