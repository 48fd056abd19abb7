"""`with` blocks in the body of a pipeline: steps under a condition, and steps for the end of the run.

with when(best.accuracy >= 0.9):
    register(best.model)
with otherwise():
    notify("not good enough")
with on_failure() as failure:
    alert(failure.error)
with on_exit() as ending:
    clean_up(ending.outcome)
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal

from penstock.authoring import options
from penstock.authoring.trace import comparisons, pipeline_tracer
from penstock.authoring.trace.pipeline_tracer import Block, Tracer
from penstock.authoring.trace.placeholders import Placeholder, refuse
from penstock.authoring.trace.references import Reference
from penstock_core.pipeline import ir, values
from penstock_core.pipeline.conditions import Condition, Not

Outcome = Literal["succeeded", "failed", "cancelled"]


class ConditionBlock:
    """A `with` block whose steps are skipped unless a condition is true."""

    def __init__(self, tracer: Tracer, condition: Condition) -> None:
        self._tracer = tracer
        self._block = Block(tracer.scopes[-1], condition)

    def __enter__(self) -> None:
        self._tracer.blocks.append(self._block)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._tracer.exit_block(self._block)


def when(condition: Any) -> ConditionBlock:
    """Run the steps of a `with` block only if a condition on results is true.

    Args:
        condition: a comparison of results and parameters with each other or with plain values; several joined with
            `&`, `|` and `~`, each in brackets; or a result whose truth counts, such as a flag.

    Raises:
        DefinitionError: it is not a condition, or is used outside a pipeline body; with the user's line.
    """
    tracer = _compiling("when")
    owner, found = comparisons.read(condition, "when()")
    if owner is not tracer:
        raise options.definition_error(
            f"{condition!r} belongs to another pipeline or to an earlier compilation of this one"
        )
    return ConditionBlock(tracer, found)


def otherwise() -> ConditionBlock:
    """Run the steps of a `with` block only if the condition of the preceding `when` block is false.

    Raises:
        DefinitionError: no `when` block directly precedes it; with the user's line.
    """
    tracer = _compiling("otherwise")
    condition = tracer.last_closed_condition()
    if condition is None:
        raise options.definition_error("otherwise() must directly follow a 'with when(...):' block, at the same depth")
    return _Otherwise(tracer, Not(condition))


class _Otherwise(ConditionBlock):
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)
        # A second `otherwise` is an error.
        self._tracer.passed = None


class Ending(Placeholder):
    """The outcome of the run, for the steps of an `on_failure` or `on_exit` block."""

    __slots__ = ("_tracer",)

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def __repr__(self) -> str:
        return "the ending of the run"

    @property
    def error(self) -> Any:
        """The error message of the run; None if it succeeds."""
        return Reference(self._tracer, values.Ending("error"), str | None, None, "the error of the run")

    @property
    def outcome(self) -> Any:
        """`succeeded`, `failed` or `cancelled`."""
        return Reference(self._tracer, values.Ending("outcome"), Outcome, None, "the outcome of the run")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        refuse(self, f"accessed by attribute {name!r}, which is neither 'error' nor 'outcome',")


class RunFailure(Ending):
    """The failure of the run, for the steps of an `on_failure` block."""

    __slots__ = ()

    @property
    def error(self) -> Any:
        """The error message of the run."""
        return Reference(self._tracer, values.Ending("error"), str, None, "the error of the run")


class PhaseBlock:
    """A `with` block whose steps run after the rest of the run has finished."""

    def __init__(self, tracer: Tracer, phase: ir.Phase) -> None:
        self._tracer = tracer
        self._block = Block(tracer.scopes[-1], phase=phase)

    def __enter__(self) -> Any:
        self._tracer.blocks.append(self._block)
        return RunFailure(self._tracer) if self._block.phase is ir.Phase.ON_FAILURE else Ending(self._tracer)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._tracer.exit_block(self._block)


def on_failure() -> PhaseBlock:
    """Run the steps of a `with` block at the end of a run that fails.

    `with on_failure() as failure:` gives `failure.error`, the reason as text, and `failure.outcome`.

    Raises:
        DefinitionError: it is used inside another such block, or outside a pipeline's body; with the user's line.
    """
    return _phase_block("on_failure", ir.Phase.ON_FAILURE)


def on_exit() -> PhaseBlock:
    """Run the steps of a `with` block at the end of every run.

    `with on_exit() as ending:` gives `ending.outcome`, one of `succeeded`, `failed` and `cancelled`, and
    `ending.error`, the reason as text, or None.

    Raises:
        DefinitionError: it is used inside another such block, or outside a pipeline's body; with the user's line.
    """
    return _phase_block("on_exit", ir.Phase.ON_EXIT)


def _phase_block(word: str, phase: ir.Phase) -> PhaseBlock:
    tracer = _compiling(word)
    if tracer.phase() is not ir.Phase.MAIN:
        raise options.definition_error(f"{word}() cannot be used inside an on_failure() or on_exit() block")
    return PhaseBlock(tracer, phase)


def _compiling(word: str) -> Tracer:
    tracer = pipeline_tracer.active()
    if tracer is None:
        raise options.definition_error(
            f"{word}() can only be used inside a pipeline body; in a step, use 'if' and 'try'"
        )
    return tracer
