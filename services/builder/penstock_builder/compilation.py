"""Makes a version's content of a checked out repository: source bundle, compiled pipeline and its environment.

The source is packed by a process that executes nothing of it. It is compiled in a sandbox, in the environment that its
files declare; what comes back is checked like the request of a client.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pydantic

from penstock_adapters.sandbox import Program, Sandbox, SandboxError
from penstock_contracts.commands import EnvironmentInfo, InterpreterHint
from penstock_core.environments.declaration import EnvironmentDeclaration, InvalidDeclarationError
from penstock_core.errors import PenstockError, UnavailableError
from penstock_core.pipeline.ir import Pipeline

_PACKING = 120.0
"""Seconds that packing may take."""

_MEMORY = 4 * 1024**3
"""Bytes of memory of a compilation."""

_PACKAGES = ("penstock", "penstock_core")
_DECLARATION = pydantic.TypeAdapter(EnvironmentDeclaration)
_PIPELINE = pydantic.TypeAdapter(Pipeline)

Log = Callable[[str], None]


class CompileError(PenstockError):
    """A pipeline of a repository cannot be made a version; says why, and where in the user's code."""

    user_fault: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The source of a pipeline.

    Attributes:
        file: of the pipeline, in the checkout.
        bundle: file of the source bundle.
        source: its SHA-256.
        files: names of its files.
        code: SHA-256 of the modules that the pipeline imports.
        environment: that the files of the project declare; None: the builder's own.
        own: the builder's own environment.
        interpreter: where that is installed.
        warnings: for the user.
    """

    file: str
    bundle: Path
    source: str
    files: tuple[str, ...]
    code: str
    environment: EnvironmentDeclaration | None
    own: EnvironmentInfo
    interpreter: InterpreterHint
    warnings: tuple[str, ...]


async def pack(checkout: Path, path: str, bundle: Path) -> Packed:
    """Pack the source of the pipeline at a path of a checkout into a file.

    Raises:
        CompileError: there is no such file, or the source is too large.
        UnavailableError: the process cannot be started.
    """
    order = json.dumps({"checkout": str(checkout), "path": path, "bundle": str(bundle)})
    process = await asyncio.create_subprocess_exec(
        *_module("penstock.git_builds.pack", sys.executable),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"LC_ALL": "C.UTF-8"},
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(order.encode()), _PACKING)
    except TimeoutError:
        raise CompileError(f"the source was not packed in {_PACKING:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise CompileError(f"the source cannot be packed: {errors.decode(errors='replace')[-2000:]}")
    found = _reply(output)
    try:
        declared = found["environment"]
        return Packed(
            file=found["file"],
            bundle=bundle,
            source=found["source"],
            files=tuple(found["files"]),
            code=found["code"],
            environment=_DECLARATION.validate_python(declared) if declared is not None else None,
            own=EnvironmentInfo.model_validate(found["own_environment"]),
            interpreter=InterpreterHint.model_validate(found["interpreter"]),
            warnings=tuple(found["warnings"]),
        )
    except (pydantic.ValidationError, InvalidDeclarationError) as error:
        raise CompileError(str(error)) from error


async def compile_pipeline(
    sandbox: Sandbox, packed: Packed, checkout: Path, pipeline: str, python: str | None, timeout: float, log: Log
) -> tuple[Pipeline, list[str]]:
    """Compile a pipeline in a sandbox; return it and warnings for the user.

    Args:
        sandbox: where the user's module is imported.
        packed: its source.
        checkout: root of the repository.
        pipeline: its name; empty: the only one of the file.
        python: interpreter of the environment of the project; None: that of the builder.
        timeout: in seconds.
        log: receives what the module prints.

    Raises:
        CompileError: the module cannot be imported, or has no valid pipeline.
        UnavailableError: the sandbox cannot be started.
    """
    order = {
        "file": packed.file,
        "pipeline": pipeline,
        "files": packed.files,
        "checkout": str(checkout),
        "declared": packed.environment is not None,
        "memory": _MEMORY,
    }
    program = Program(
        command=_module("penstock.git_builds.compile", python or sys.executable),
        folder=Path(packed.file).parent,
        readable=[checkout, *_installation(Path(python) if python else None)],
        stdin=json.dumps(order).encode(),
        timeout=timeout,
    )
    try:
        found = _reply(await sandbox.run(program, log), str(checkout))
    except SandboxError as error:
        raise CompileError(f"the pipeline cannot be compiled: {error}") from error
    try:
        compiled = _PIPELINE.validate_python(found["pipeline"])
        return compiled, [str(text)[:1000] for text in found["warnings"]][:100]
    except (pydantic.ValidationError, InvalidDeclarationError, LookupError, TypeError) as error:
        raise CompileError(f"the compiled pipeline is not valid: {error}") from error


def _module(name: str, python: str) -> list[str]:
    """Return a command that runs a module of the SDK, which the environment of the interpreter need not have."""
    paths = sorted({str(_location(package).parent) for package in _PACKAGES})
    code = f"import sys; sys.path[:0] = {paths!r}; import runpy; runpy.run_module({name!r}, run_name='__main__')"
    return [python, "-I", "-c", code]


def _installation(python: Path | None) -> Sequence[Path]:
    """Return the folders that an interpreter and the SDK need."""
    own = [_location(name) for name in _PACKAGES]
    if python is None:
        return [*own, Path(sys.prefix), Path(sys.base_prefix)]
    return [*own, python.parent.parent, python.resolve().parent.parent]


def _location(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise UnavailableError(f"the package {name!r} is not installed beside the builder: install penstock there")
    return Path(spec.origin).parent


def _reply(output: bytes, checkout: str = "") -> dict[str, Any]:
    try:
        found: Any = orjson.loads(output)
    except ValueError as error:
        raise CompileError("the process that compiles the pipeline ended without a result") from error
    if not isinstance(found, dict):
        raise CompileError("the process that compiles the pipeline gave no result")
    if "error" in found:
        text = f"{found['error']}\n{found.get('trace', '')}".strip()
        raise CompileError(text.replace(f"{checkout}/", "")[:20_000] if checkout else text[:20_000])
    return found
