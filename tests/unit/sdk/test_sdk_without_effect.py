"""Options without effect are reported."""

from __future__ import annotations

from penstock.authoring.unsupported_options import unsupported_option_warnings
from penstock_core.pipeline import ir


def compiled(**options: object) -> ir.Pipeline:
    spec = ir.StepSpec(name="fit", entrypoint="m:fit", file="m.py", line=3, **options)  # type: ignore[arg-type]
    return ir.Pipeline(name="p", steps={"fit": spec}, nodes=(ir.Node(key="fit", step="fit"),))


def test_effective_options_are_not_mentioned() -> None:
    assert (
        unsupported_option_warnings(
            compiled(timeout=3.0, retry=ir.Retry(retries=2), resources=ir.Resources(memory=10**9, cpu=2.0, gpu=1))
        )
        == []
    )


def test_each_ineffective_option_is_named_with_step_and_line() -> None:
    assert unsupported_option_warnings(compiled(secrets=("db",))) == [
        "m.py:3: secrets of step 'fit' has no effect in this version"
    ]
