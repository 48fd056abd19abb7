"""What a compilation has recorded: calls of steps, and groups of them that came from a pipeline in a pipeline."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock_core import values


@dataclass
class Draft:
    """A call of a step, as it becomes a node."""

    key: str
    step: str
    inputs: dict[str, values.Binding]
    file: str | None
    line: int | None
    after: list[str] = field(default_factory=list[str])

    @property
    def what(self) -> str:
        """How errors call it."""
        return f"step {self.key!r}"

    def needs(self) -> list[str]:
        """Keys of the calls that must have succeeded before this one."""
        return [source.node for binding in self.inputs.values() for source in values.sources(binding)] + self.after

    def firsts(self) -> list[Draft]:
        """Itself: what `.after` must hold back."""
        return [self]

    def lasts(self) -> list[Draft]:
        """Itself: what whoever comes `.after` must wait for."""
        return [self]


@dataclass
class Group:
    """The calls of steps that one call of a pipeline inside a pipeline made, those of deeper pipelines among them."""

    key: str
    drafts: list[Draft]

    @property
    def what(self) -> str:
        """How errors call it."""
        return f"pipeline {self.key!r}"

    def firsts(self) -> list[Draft]:
        """The calls that wait for no other call of the group."""
        own = {draft.key for draft in self.drafts}
        return [draft for draft in self.drafts if own.isdisjoint(draft.needs())]

    def lasts(self) -> list[Draft]:
        """The calls that no other call of the group waits for."""
        needed = {key for draft in self.drafts for key in draft.needs()}
        return [draft for draft in self.drafts if draft.key not in needed]
