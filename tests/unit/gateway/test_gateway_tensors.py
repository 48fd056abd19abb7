"""Tensors of the Open Inference Protocol."""

from __future__ import annotations

import pytest

from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Output
from penstock_gateway.endpoints import tensors
from penstock_gateway.errors import UnprocessableError


def test_lists_are_tensors() -> None:
    assert tensors.outputs([[1, 2], [3, 4]]) == [
        {"name": "result", "datatype": "INT64", "shape": [2, 2], "data": [1, 2, 3, 4]}
    ]
    assert tensors.outputs({"n": 1.5, "none": []}) == [
        {"name": "n", "datatype": "FP64", "shape": [1], "data": [1.5]},
        {"name": "none", "datatype": "FP64", "shape": [0], "data": []},
    ]


@pytest.mark.parametrize("value", [[[1, 2], [3], [4, 5, 6]], [[1], [2, 3], []], [[1], 2], [1, [2]]])
def test_lists_of_different_lengths_are_no_tensor(value: object) -> None:
    with pytest.raises(UnprocessableError, match="The output of the run is no tensor"):
        tensors.outputs(value)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, [("result", "BYTES", [1])]),
        ({"type": "array", "items": {"type": "integer"}}, [("result", "INT64", [-1])]),
        (
            {"type": "object", "properties": {"label": {"type": "string"}, "share": {"type": "number"}}},
            [("label", "BYTES", [1]), ("share", "FP64", [1])],
        ),
    ],
)
def test_output_tensors_have_the_types_of_the_pipeline(
    schema: dict[str, object], expected: list[tuple[str, str, list[int]]]
) -> None:
    step = ir.StepSpec(name="s", entrypoint="m:f", outputs=(ir.Port(name="result", type="x", schema=schema),))
    nodes = (ir.Node(key="s", step="s"),)
    pipeline = ir.Pipeline(name="p", steps={"s": step}, nodes=nodes, outputs={"result": Output("s")})
    found = tensors.output_metadata(pipeline)
    assert [(one["name"], one["datatype"], one["shape"]) for one in found] == expected
