"""Steps with the option `batch`: their types, and calls in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import Batch, pipeline, step
from penstock.runner.warm_run import Program, WarmRun
from penstock.runner.warm_values import LoadedArtifacts
from penstock.store import FolderStore
from penstock_core.errors import DefinitionError
from penstock_core.facts import RunRequested
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline


@step(batch=Batch(max=4, wait="5ms"))
def scaled(rows: list[list[float]], factor: float) -> list[float]:
    assert len(rows) == 1
    return [sum(row) * factor for row in rows]


@step(batch=Batch())
def shifted(values: list[int], by: int = 1) -> list[int]:
    return [value + by for value in values]


@pipeline
def shifting(value: int):
    return shifted(value), shifted(value, by=10)


@step(batch=Batch())
async def slow(values: list[int]) -> list[int]:
    return [value + 1 for value in values]


@step(batch=Batch())
def wrong(values: list[int]) -> list[int]:
    return [*values, 1]


@pipeline
def scaling(row: list[float], factor: float = 2.0):
    return scaled(row, factor)


@pipeline
def waiting(value: int):
    return slow(value)


@pipeline
def failing(value: int):
    return wrong(value)


def test_a_step_has_the_types_of_one_call() -> None:
    spec = scaling.compile().steps["scaled"]
    assert spec.batch == ir.Batch(max=4, wait=0.005)
    assert [port.type for port in spec.inputs] == ["list[float]", "float"]
    assert spec.outputs[0].type == "float"


def test_calls_in_one_process_are_batches_of_one() -> None:
    assert scaling.local(row=[1.0, 2.0]) == 6.0
    assert waiting.local(value=1) == 2
    with pytest.raises(TypeError, match="1 inputs as a batch"):
        failing.local(value=1)


def test_a_warm_worker_calls_nodes_of_one_step_with_and_without_a_default(tmp_path: Path) -> None:
    compiled = shifting.compile()
    program = Program(compiled, LoadedArtifacts(FolderStore(tmp_path), unsafe=False), "executor")
    requested = RunRequested(
        run_id="r1", project="default", pipeline=compiled.name, version=1, inputs={"value": Inline(1)}
    )
    run = WarmRun(program, requested)
    program.run_all([run])
    assert run.end["outcome"] == "succeeded", run.end
    assert run.end["outputs"] == {"result": {"items": [{"value": 2}, {"value": 11}]}}


def test_the_function_itself_takes_lists() -> None:
    assert scaled([[1.0]], 3.0) == [3.0]


def test_what_cannot_be_a_batch_is_refused() -> None:
    @step(batch=Batch())
    def no_list(value: int) -> list[int]:
        return [value]

    @step(batch=Batch())
    def optional(values: list[int] = []) -> list[int]:  # noqa: B006
        return values

    @step(batch=Batch())
    def no_results(values: list[int]) -> int:
        return len(values)

    for one, text in (
        (no_list, "no parameter of type list"),
        (optional, "cannot have a default"),
        (no_results, "return"),
    ):
        with pytest.raises(DefinitionError, match=text):
            _ = one.signature
    for value in ({"max": 0}, {"wait": "soon"}):
        with pytest.raises(DefinitionError):
            Batch(**value)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="batch must be Batch"):
        step(batch=3)  # type: ignore[call-overload]
