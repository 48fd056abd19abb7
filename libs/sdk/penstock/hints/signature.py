"""Inputs and outputs of a function, read from its parameters and type hints."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from penstock import hints
from penstock.hints import value_check
from penstock_core.errors import DefinitionError

MISSING: Any = inspect.Parameter.empty
_REFUSED = {
    inspect.Parameter.VAR_POSITIONAL: "takes *{name}: use a list parameter instead",
    inspect.Parameter.VAR_KEYWORD: "takes **{name}: use a dict parameter instead",
    inspect.Parameter.POSITIONAL_ONLY: "has the positional-only parameter {name!r}: remove the '/'",
}


@dataclass(frozen=True, slots=True)
class Input:
    """A parameter: its hint, `Any` if it has none, and its default or `MISSING`."""

    name: str
    hint: Any
    default: Any = MISSING

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is MISSING


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs by name, in order. `named` is the NamedTuple class whose fields are the outputs, if any."""

    inputs: dict[str, Input]
    outputs: dict[str, Any]
    returns: Any
    named: type | None


class Parametrized(Protocol):
    """What has a name and typed parameters: a pipeline."""

    name: str

    @property
    def signature(self) -> Signature:
        """Parameters and what is declared to be returned."""
        ...

    @property
    def hints(self) -> dict[str, Any]:
        """Type hints of the parameters by name."""
        ...


def place(function: Callable[..., Any]) -> tuple[str | None, int | None]:
    """File and line where a function is defined."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return (code.co_filename, code.co_firstlineno) if code is not None else (None, None)


def read(function: Callable[..., Any], what: str, names: Mapping[str, Any] | None = None) -> Signature:
    """Read a function's signature.

    Args:
        function: the function.
        what: how to call it in errors, such as `step 'train'`.
        names: local names in which hints given as text may be looked up, beside the module's.

    Raises:
        DefinitionError: a hint cannot be resolved, or a kind of parameter is refused.
    """
    file, line = place(function)
    try:
        found = typing.get_type_hints(function, localns=dict(names) if names else None)
    except Exception as error:
        raise DefinitionError(
            f"a type hint of {what} cannot be read: {error}. Names in hints must be importable when the pipeline is "
            "compiled: define or import them at the top of the module, not only under TYPE_CHECKING",
            file,
            line,
        ) from error
    inputs: dict[str, Input] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in _REFUSED:
            refusal = _REFUSED[parameter.kind].format(name=parameter.name)
            raise DefinitionError(f"{what} {refusal}, so that every input has a name and a type", file, line)
        inputs[parameter.name] = Input(parameter.name, found.get(parameter.name, Any), parameter.default)
    returns = found.get("return", Any)
    named = _named_tuple(returns)
    outputs = hints.fields(named) if named is not None else {"result": returns}
    return Signature(inputs, outputs, returns, named)


def read_local(function: Callable[..., Any], what: str) -> Signature | None:
    """Read the signature of a function inside a function now, because its hints may name local classes.

    Returns:
        None where it is no such function, or cannot be read yet.
    """
    if "<locals>" not in function.__qualname__:
        return None
    frame: types.FrameType | None = inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith("penstock."):
        frame = frame.f_back
    try:
        return read(function, what, frame.f_locals if frame else None)
    except DefinitionError:
        return None


def _named_tuple(hint: Any) -> type | None:
    cls = typing.get_origin(hint) or hints.strip(hint)
    return cls if hints.is_named_tuple(cls) and not isinstance(cls, types.UnionType) else None


def check_defaults(found: Signature, kind: str, of: str, file: str | None, line: int | None) -> None:
    """Check that the defaults fit their hints. `kind` and `of` name what has them: `input` of `step 'train'`.

    Raises:
        DefinitionError: one does not.
    """
    for one in found.inputs.values():
        problem = None if one.required else value_check.problem(one.default, one.hint)
        if problem is not None:
            raise DefinitionError(
                f"the default of {kind} {one.name!r} of {of} does not fit its hint {hints.show(one.hint)}: {problem}",
                file,
                line,
            )
