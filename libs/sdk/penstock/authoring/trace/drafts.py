"""Records of a compilation: calls of steps, and groups of calls made by inlined pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock.hints.signature import Input, Parametrized, Signature
from penstock_core.pipeline import conditions, ir, values
from penstock_core.pipeline.conditions import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOptions:
    """The options of a step that concern its calls, not its definition; see `ir.Node` and `ir.MapSpec`."""

    rule: ir.Rule = ir.Rule.ALL_SUCCEEDED
    window: int = ir.DEFAULT_WINDOW
    min_success: int | float | None = None


class Compilation:
    """One compilation of a pipeline. References belong to one, and cannot be used in another."""


class PipelineDefinition(Parametrized, Protocol):
    """A pipeline as its compilation sees it."""

    function: Callable[..., Any]
    file: str | None
    line: int | None

    def parameter(self, one: Input) -> ir.Port:
        """Return the IR of a parameter."""
        ...

    def assemble(self, graph: Any, spec: Callable[[str, Definition], ir.StepSpec] | None = None) -> ir.Pipeline:
        """The IR of a traced pipeline."""
        ...

    def run_locally(self, inputs: Mapping[str, Any], answers: Any) -> Any:
        """Run it in this process."""
        ...


class Definition(Protocol):
    """What can be called in a pipeline: a step or a wait."""

    name: str
    call_options: CallOptions

    @property
    def identity(self) -> object:
        """Equal for definitions that are the same."""
        ...

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        ...

    def spec(self, module: str | None = None) -> ir.StepSpec:
        """Return the IR; `module` overrides the module of a step's function."""
        ...


@dataclass
class Draft:
    """A call of a step, as it becomes a node; see `ir.Node`."""

    key: str
    step: str
    inputs: dict[str, values.Binding]
    file: str | None
    line: int | None
    after: list[str] = field(default_factory=list[str])
    when: Condition | None = None
    rule: ir.Rule = ir.Rule.ALL_SUCCEEDED
    phase: ir.Phase = ir.Phase.MAIN
    mapped: ir.MapSpec | None = None

    @property
    def what(self) -> str:
        """Its name in errors."""
        return f"step {self.key!r}"

    def needs(self) -> list[str]:
        """Keys of the calls that this one waits for."""
        found = [source.node for binding in self.inputs.values() for source in values.sources(binding)]
        if self.when is not None:
            found += [source.node for source in conditions.sources(self.when)]
        return found + self.after

    def node(self) -> ir.Node:
        """Return the IR."""
        return ir.Node(
            key=self.key,
            step=self.step,
            inputs=self.inputs,
            after=tuple(self.after),
            when=self.when,
            rule=self.rule,
            phase=self.phase,
            mapped=self.mapped,
            file=self.file,
            line=self.line,
        )

    def first_calls(self) -> list[Draft]:
        """Itself: the calls that `.after` delays."""
        return [self]

    def last_calls(self) -> list[Draft]:
        """Itself: the calls that a later call waits for."""
        return [self]


@dataclass
class Group:
    """The calls of steps that one call of a pipeline inside a pipeline made, those of deeper pipelines among them.

    Steps for the end of the run (`on_failure`, `on_exit`) are no part of the order between calls.
    """

    key: str
    drafts: list[Draft]
    phase: ir.Phase = ir.Phase.MAIN

    @property
    def what(self) -> str:
        """Its name in errors."""
        return f"pipeline {self.key!r}"

    def first_calls(self) -> list[Draft]:
        """The calls that wait for no other call of the group."""
        own = {draft.key for draft in self.ordered()}
        return [draft for draft in self.ordered() if own.isdisjoint(draft.needs())]

    def last_calls(self) -> list[Draft]:
        """The calls that no other call of the group waits for."""
        needed = {key for draft in self.ordered() for key in draft.needs()}
        return [draft for draft in self.ordered() if draft.key not in needed]

    def ordered(self) -> list[Draft]:
        """The calls that have their turn when the group has."""
        return [draft for draft in self.drafts if draft.phase is self.phase]
