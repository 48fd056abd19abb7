"""What callers of an endpoint may not give: they may run the deployment, and nothing else."""

from __future__ import annotations

from typing import Any, cast

from penstock_core.errors import InvalidInputsError
from penstock_core.pipeline.ir import Pipeline, Port
from penstock_gateway.endpoints import interface

DATA_FORMATS = frozenset({
    "file", "folder", "json", "jsonl", "text", "bytes", "markdown", "html", "parquet", "npy", "npz", "png", "image",
    "tiff", "plotly", "safetensors", "skops",
})  # fmt: skip
"""Formats of artifacts whose loading runs no code of the artifact. Formats that users registered are not among them."""

JSON_FORMATS = frozenset({"json", "jsonl"})
"""Formats of artifacts that can have a path in them, whose content is therefore read."""

DATA_TYPES = frozenset({
    "float", "int", "str", "bytes", "tuple", "set", "frozenset", "dict", "datetime", "date", "time", "timedelta",
    "decimal", "uuid", "complex", "markdown", "html",
})  # fmt: skip
"""Types that a value in JSON may name by `$type`. To read any other, the step's process would import a module."""

NAMES_PATH = "contains a path, which callers cannot choose: send the file as a part of a form"


def check(pipeline: Pipeline, inputs: dict[str, Any]) -> None:
    """Refuse what callers may not choose.

    These are paths, which would choose files of the platform's machines, classes, whose modules a step would import,
    and artifacts whose loading could run code.

    Raises:
        InvalidInputsError: names the inputs.
    """
    errors = [
        (port.name, problem)
        for port in pipeline.params
        if (given := inputs.get(port.name)) is not None and (problem := _problem(port, given))
    ]
    if errors:
        raise InvalidInputsError("Invalid request", errors)


def tag_problem(value: Any) -> str:
    """Return why JSON has a `$type` in it that callers may not choose, at any depth; empty if it has none.

    A step would read the file of its machine that a path names, and import the module of a class.
    """
    level: list[Any] = [value]
    while level:
        one = level.pop()
        if isinstance(one, dict):
            found = cast("dict[str, Any]", one)
            tag = found.get("$type")
            if tag == "path":
                return NAMES_PATH
            if "$type" in found and not (isinstance(tag, str) and tag in DATA_TYPES):
                return f"contains the $type {str(tag)[:100]!r}, which callers cannot choose: send plain data"
            level += found.values()
        elif isinstance(one, list):
            level += cast("list[Any]", one)
    return ""


def _problem(port: Port, given: Any) -> str:
    if problem := tag_problem(given):
        return problem
    if not (isinstance(given, dict) and [*cast("dict[str, Any]", given)] == ["artifact"]):
        if interface.contains_paths(port):
            return "expected a file: send it as a part of a form, or a reference to an artifact"
        return ""
    reference = cast("dict[str, Any]", given)["artifact"]
    form = cast("dict[str, Any]", reference).get("format", "file") if isinstance(reference, dict) else "file"
    if form in DATA_FORMATS:
        return ""
    return (
        f"is an artifact in the format {str(form)[:100]!r}, whose loading could run code: "
        'send plain data or a file, or a registered model such as "model:churn@champion"'
    )
