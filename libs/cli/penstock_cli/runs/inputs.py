"""Parses `-p NAME=VALUE` by the type hints of the pipeline.

`NAME=@FILE` reads the value from a file. Files and folders of path parameters are uploaded with the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock import hints
from penstock.inputs import parse_inputs
from penstock_cli.arguments import parse_pairs, suggest_models
from penstock_core.errors import InputError, InvalidInputsError
from penstock_core.registry import references

if TYPE_CHECKING:
    from penstock.authoring import Pipeline


def parse(pipeline: Pipeline, given: Sequence[str]) -> dict[str, Any]:
    """Return the inputs of a run.

    Raises:
        UsageError: an option has another form, or is repeated.
        InputError: a name is unknown or missing, a value does not fit, or a file does not exist.
    """
    texts = {
        name: _from_file(name, text, pipeline) if text.startswith("@") else text
        for name, text in parse_pairs("-p", given, unique=True).items()
    }
    with suggest_models(texts):
        return _parsed(pipeline, texts)


def _parsed(pipeline: Pipeline, texts: dict[str, str]) -> dict[str, Any]:
    models = {name: text for name, text in texts.items() if _names_model(pipeline, name, text)}
    try:
        inputs = parse_inputs(pipeline, {name: text for name, text in texts.items() if name not in models}, models)
    except InvalidInputsError as error:
        raise _with_advice(pipeline, error) from error
    for name, value in inputs.items():
        if isinstance(value, Path) and not value.exists():
            raise InputError(f"parameter {name!r}: no such file or folder: {value}")
    # References to models are resolved by the platform when the run is submitted.
    return {**inputs, **models}


def _with_advice(pipeline: Pipeline, error: InvalidInputsError) -> InputError:
    """Say how to give the parameters that are missing."""
    missing = [path.removeprefix("inputs.") for path, message in error.errors if message.startswith("missing")]
    names = [name for name in missing if name in pipeline.hints]
    if not names:
        return error
    advice = " ".join(f"-p {name}=…" for name in names)
    return InputError(f"{pipeline.file}:{pipeline.line}: {error}: add {advice}")


def _names_model(pipeline: Pipeline, name: str, text: str) -> bool:
    """Whether an input refers to a registered model; parameters that accept strings take the text as it is."""
    if not text.startswith(references.PREFIX) or name not in pipeline.hints:
        return False
    if any(hints.class_of(option) is str for option in hints.members(pipeline.hints[name])):
        return False
    references.parse(text.removeprefix(references.PREFIX))
    return True


def _from_file(name: str, text: str, pipeline: Pipeline) -> str:
    if any(hints.class_of(option) is str for option in hints.members(pipeline.hints.get(name, Any))):
        # A string may begin with @.
        return text
    file = Path(text[1:])
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"parameter {name!r}: cannot read {file}: {error}") from error
