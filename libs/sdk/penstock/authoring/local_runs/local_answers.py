"""Answers, events and results of child runs for a local run, which the caller passes in advance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.authoring.waits import WaitStep
from penstock.errors import MissingAnswerError
from penstock.inputs import check_value
from penstock_core.errors import InputError
from penstock_core.pipeline.ir import Kind

_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class LocalAnswers:
    """Answers, events and results of child runs.

    Attributes:
        answers: to questions, by key of the step or by the question.
        events: their data, by key of the step or by the type of the event.
        runs: the outputs of runs of other pipelines, by key of the step or by the name of the pipeline.
    """

    answers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    events: Mapping[str, Any] = field(default_factory=dict[str, Any])
    runs: Mapping[str, Any] = field(default_factory=dict[str, Any])


def answer(there: LocalAnswers, key: str, waiting: WaitStep, given: Mapping[str, Any]) -> Any:
    """Return the result of a wait.

    Raises:
        MissingAnswerError: the caller did not pass it, or passed a value that is not valid.
    """
    match waiting.kind:
        case Kind.ASK:
            return _choice(there, key, given)
        case Kind.EVENT:
            data = _found(there.events, key, given["type"])
            if data is _MISSING:
                raise MissingAnswerError(
                    f"step {key!r} waits for an event of type {given['type']!r}: "
                    f"pass local(events={{{given['type']!r}: {{…}}}})"
                )
            return _fitting(data, dict[str, Any], f"the event for step {key!r}")
        case Kind.RUN:
            return _output(there, key, waiting, given)
        case _:
            return None


def _fitting(value: Any, hint: Any, what: str) -> Any:
    try:
        return check_value(value, hint, what)
    except InputError as error:
        raise MissingAnswerError(str(error)) from error


def _found(there: Mapping[str, Any], *names: str) -> Any:
    return next((there[name] for name in names if name in there), _MISSING)


def _choice(there: LocalAnswers, key: str, given: Mapping[str, Any]) -> Any:
    question, choices = given["question"], given["choices"]
    choice = _found(there.answers, key, question)
    if choice is _MISSING:
        # The question times out.
        choice = given.get("default", _MISSING)
    if choice is _MISSING:
        raise MissingAnswerError(f"step {key!r} asks {question!r}: pass local(answers={{{key!r}: {choices[0]!r}}})")
    if choice not in choices:
        known = ", ".join(map(repr, choices))
        raise MissingAnswerError(f"step {key!r} asks {question!r}; the answer {choice!r} is not one of {known}")
    return choice


def _output(there: LocalAnswers, key: str, waiting: WaitStep, given: Mapping[str, Any]) -> Any:
    target = waiting.settings["target"]
    output = _found(there.runs, key, target)
    if output is not _MISSING:
        return _fitting(output, waiting.signature.returns, f"the output of pipeline {target!r} for step {key!r}")
    if waiting.pipeline is None:
        raise MissingAnswerError(
            f"step {key!r} runs pipeline {target!r}, which is not loaded: pass the Pipeline object to run_pipeline(), "
            f"or results with local(runs={{{target!r}: …}})"
        )
    return waiting.pipeline.run_locally(given, there)
