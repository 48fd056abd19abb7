"""Files of a project that a pipeline's definition names: defaults and literals of type `Path`.

The source bundle has these files, so the definition names them relative to the project's root, and a step finds them in
its copy of the source: a relative path that does not exist in the working folder of a step is looked up there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from penstock_core.errors import DefinitionError
from penstock_core.pipeline import ir, values


def relocate(compiled: ir.Pipeline, root: Path, files: Collection[str]) -> tuple[ir.Pipeline, list[str]]:
    """Name the files of the project relative to its root.

    Args:
        compiled: the pipeline.
        root: the project's root.
        files: names of the files in its source bundle.

    Returns:
        The pipeline, and warnings about defaults that steps cannot read.

    Raises:
        DefinitionError: a literal names a file that the source bundle does not have.
    """
    warnings: list[str] = []
    params: list[ir.Port] = []
    for port in compiled.params:
        text = _text(port.default, port.type)
        name, missing = _locate(text, root, files)
        params.append(port if name == text else dataclasses.replace(port, default=name))
        if missing:
            warnings.append(
                f"the default {text!r} of parameter {port.name!r} {missing}, so no step can read it: "
                f"pass it with each run (-p {port.name}={text}), which uploads it"
            )
    nodes = tuple(_relocate_node(compiled, node, root, files) for node in compiled.nodes)
    return dataclasses.replace(compiled, params=tuple(params), nodes=nodes), warnings


def find_in_source(value: Any, root: Path | None) -> Any:
    """The path in the source of a relative path that does not exist; any other value as it is."""
    if isinstance(value, Path) and root is not None and not value.is_absolute() and not value.exists():
        found = root / value
        return found if found.exists() else value
    if type(value) is list:
        return [find_in_source(one, root) for one in cast("list[Any]", value)]
    if type(value) is tuple:
        return tuple(find_in_source(one, root) for one in cast("tuple[Any, ...]", value))
    if type(value) is dict:
        return {key: find_in_source(one, root) for key, one in cast("dict[Any, Any]", value).items()}
    return value


def _relocate_node(compiled: ir.Pipeline, node: ir.Node, root: Path, files: Collection[str]) -> ir.Node:
    types = {port.name: port.type for port in compiled.steps[node.step].inputs}
    changed: dict[str, values.Binding] = {}
    for name, binding in node.inputs.items():
        text = _text(binding.value, types.get(name, "")) if isinstance(binding, values.Inline) else ""
        found, missing = _locate(text, root, files)
        if missing:
            raise DefinitionError(
                f"input {name!r} of step {node.step!r}: the file {text!r} {missing}, so the step cannot read it: "
                "make it a parameter of the pipeline and pass it with each run, which uploads it",
                node.file,
                node.line,
            )
        if found != text:
            changed[name] = values.Inline(found)
    return dataclasses.replace(node, inputs={**node.inputs, **changed}) if changed else node


def _text(value: Any, kind: str) -> str:
    return value if isinstance(value, str) and "Path" in kind.replace("|", " ").split() else ""


def _locate(text: str, root: Path, files: Collection[str]) -> tuple[str, str]:
    """The name relative to the root, and why the bundle does not have the file, if it exists on this machine."""
    if not text or not Path(text).exists():
        return text, ""
    path = Path(text).resolve()
    if not path.is_relative_to(root):
        # An absolute path is a decision: to a shared disk, say.
        return text, "" if Path(text).is_absolute() else f"is outside of the project {root}"
    name = str(path.relative_to(root))
    if name in files or any(file.startswith(f"{name}/") for file in files):
        return name, ""
    return text, "" if Path(text).is_absolute() else "is not part of the source, see the warnings and .penstockignore"
