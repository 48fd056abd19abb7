"""Tensors of the Open Inference Protocol as inputs and outputs of a pipeline.

An input tensor is a parameter by name: nested lists in its shape, or its only element where the parameter takes no
list. Each output of the pipeline that has a plain form is an output tensor; of an object, each of its fields is one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

from penstock_core import json_schema
from penstock_core.errors import InvalidInputsError
from penstock_core.pipeline.ir import Pipeline, Port
from penstock_gateway.endpoints import interface
from penstock_gateway.errors import UnprocessableError

Json = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "BOOL": (bool,),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"), (int,)),
    **dict.fromkeys(("FP16", "FP32", "FP64"), (int, float)),
    "BYTES": (str,),
}
"""Data types, and the types of their elements in JSON."""

_SCHEMA_TYPES = {"boolean": "BOOL", "integer": "INT64", "number": "FP64", "string": "BYTES"}


def inputs(body: Any, pipeline: Pipeline) -> Json:
    """Return the inputs of a run from the body of an inference request.

    Raises:
        InvalidInputsError: names the fields of the body that are wrong.
    """
    given = cast("Json", body) if isinstance(body, dict) else {}
    tensors = given.get("inputs")
    if not isinstance(tensors, list):
        raise _invalid("inputs", "must be a list of tensors")
    ports = {port.name: port for port in pipeline.params}
    found: Json = {}
    for n, one in enumerate(cast("list[Any]", tensors)):
        if not isinstance(one, dict) or not isinstance(cast("Json", one).get("name"), str):
            raise _invalid(f"inputs[{n}]", "must be an object with a name")
        tensor = cast("Json", one)
        name = str(tensor["name"])
        value = _value(tensor, f"inputs[{n}]")
        found[name] = value if name not in ports or _takes_list(ports[name]) else _only(value, f"inputs[{n}]")
    parameters = given.get("parameters")
    if isinstance(parameters, dict):
        found = {name: value for name, value in cast("Json", parameters).items() if name in ports} | found
    return found


def outputs(answer: Any) -> list[Json]:
    """Return the output tensors of an answer.

    Raises:
        UnprocessableError: it has no plain form.
    """
    named = cast("Json", answer) if isinstance(answer, dict) else {"result": answer}
    return [_tensor(name, value) for name, value in named.items()]


def metadata(name: str, schema: Json | None) -> Json:
    """Return the metadata of a tensor by its JSON Schema: its data type, and a shape in which lists have any length."""
    shape: list[int] = []
    schema = schema or {}
    while schema.get("type") == "array":
        shape.append(-1)
        schema = cast("Json", schema.get("items") or {})
    return {"name": name, "datatype": _SCHEMA_TYPES.get(str(schema.get("type")), "BYTES"), "shape": shape or [1]}


def output_metadata(pipeline: Pipeline) -> list[Json]:
    """Return the metadata of the output tensors: of the only output if it is an object, one for each of its fields."""
    schema = interface.output_schema(pipeline)
    fields = schema.get("properties")
    return [metadata(name, one) for name, one in (fields or {"result": schema}).items()]


def _value(tensor: Json, path: str) -> Any:
    kind, shape, data = tensor.get("datatype"), tensor.get("shape"), tensor.get("data")
    if kind not in _TYPES:
        raise _invalid(f"{path}.datatype", f"must be one of {', '.join(_TYPES)}")
    if not isinstance(shape, list) or not all(type(one) is int and one >= 0 for one in cast("list[Any]", shape)):
        raise _invalid(f"{path}.shape", "must be a list of lengths")
    if not isinstance(data, list):
        raise _invalid(f"{path}.data", "must be a list: binary data is not supported")
    lengths = cast("list[int]", shape)
    elements = [*_flat(cast("list[Any]", data))]
    if len(elements) != math.prod(lengths):
        raise _invalid(f"{path}.data", f"has {len(elements)} elements; the shape {lengths} has {math.prod(lengths)}")
    for n, one in enumerate(elements):
        if not isinstance(one, _TYPES[kind]) or (isinstance(one, bool) and kind != "BOOL"):
            raise _invalid(f"{path}.data[{n}]", f"is no {kind}")
    if kind.startswith("FP"):
        elements = [float(one) for one in elements]
    return _shaped(elements, lengths)


def _flat(data: list[Any]) -> Iterator[Any]:
    for one in data:
        if isinstance(one, list):
            yield from _flat(cast("list[Any]", one))
        else:
            yield one


def _shaped(elements: list[Any], lengths: Sequence[int]) -> Any:
    if not lengths:
        return elements[0]
    for length in reversed(lengths[1:]):
        elements = [elements[at : at + length] for at in range(0, len(elements), length)] if length else []
    return elements


def _takes_list(port: Port) -> bool:
    if port.schema is None:
        return True
    return any(one.get("type", "array") == "array" for one in json_schema.alternatives(port.schema))


def _only(value: Any, path: str) -> Any:
    while isinstance(value, list):
        if len(cast("list[Any]", value)) != 1:
            raise _invalid(f"{path}.shape", "must be [1]: the parameter takes no list")
        value = cast("list[Any]", value)[0]
    return value


def _tensor(name: str, value: Any) -> Json:
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        entries = cast("list[Any]", level)
        shape.append(len(entries))
        level = entries[0] if entries else 0.0
    elements = [*_flat(cast("list[Any]", value))] if isinstance(value, list) else [value]
    if len(elements) != math.prod(shape or [1]) or (isinstance(value, list) and not _has_shape(value, shape)):
        raise _no_tensor(name, "is a list of lists of different lengths")
    kinds = {type(one) for one in elements} or {float}
    if kinds <= {bool}:
        kind = "BOOL"
    elif kinds <= {int}:
        kind = "INT64"
    elif kinds <= {int, float}:
        kind = "FP64"
    elif kinds <= {str}:
        kind = "BYTES"
    else:
        raise _no_tensor(name, "has values of several types, or objects")
    return {"name": name, "datatype": kind, "shape": shape or [1], "data": elements}


def _has_shape(value: Any, shape: Sequence[int]) -> bool:
    """Whether the lists have these lengths at each level."""
    if not shape:
        return not isinstance(value, list)
    entries = cast("list[Any]", value) if isinstance(value, list) else None
    return entries is not None and len(entries) == shape[0] and all(_has_shape(one, shape[1:]) for one in entries)


def _no_tensor(name: str, why: str) -> UnprocessableError:
    text = f"Output {name!r} {why}, which is no tensor: call the endpoint at /v1/endpoints instead"
    return UnprocessableError("The output of the run is no tensor", text)


def _invalid(field: str, message: str) -> InvalidInputsError:
    return InvalidInputsError("Invalid inference request", [(field, message)])
