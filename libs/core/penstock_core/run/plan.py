"""The graph of a pipeline version, which all its runs share. Computed once, never changed."""

from __future__ import annotations

from penstock_core.pipeline import conditions, values
from penstock_core.pipeline.ir import Node, Phase, Pipeline, StepSpec, dependencies
from penstock_core.pipeline.values import Binding

Group = tuple[tuple[str, ...], ...]
"""Alternatives for a value: one is enough, and each needs all of its nodes."""


class Plan:
    """The graph of a pipeline.

    Attributes:
        nodes: the nodes by key.
        specs: the definitions of their steps, by key of node.
        dependencies: the upstream nodes of each node.
        dependents: the downstream nodes of each node.
        needed: the dependencies without whose result the node cannot run under the rule `all_succeeded`.
        groups: the dependencies of which one of several is enough (`one_of`).
        roots: nodes of the main phase without dependencies.
        closing: nodes that run after the main phase.
    """

    __slots__ = ("closing", "dependencies", "dependents", "groups", "needed", "nodes", "pipeline", "roots", "specs")

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.nodes: dict[str, Node] = {node.key: node for node in pipeline.nodes}
        self.specs: dict[str, StepSpec] = {node.key: pipeline.steps[node.step] for node in pipeline.nodes}
        self.dependencies: dict[str, list[str]] = {node.key: dependencies(node) for node in pipeline.nodes}
        self.dependents: dict[str, list[str]] = {key: [] for key in self.nodes}
        for key, upstream in self.dependencies.items():
            for other in upstream:
                self.dependents[other].append(key)
        self.groups: dict[str, list[Group]] = {}
        self.needed = {node.key: self._needed(node) for node in pipeline.nodes}
        self.closing = [node.key for node in pipeline.nodes if node.phase is not Phase.MAIN]
        late = set(self.closing)
        self.roots = [key for key, upstream in self.dependencies.items() if not upstream and key not in late]

    def _needed(self, node: Node) -> frozenset[str]:
        groups: list[Group] = []
        strict = set(node.after)
        asked = conditions.bindings(node.when) if node.when is not None else ()
        for binding in (*node.inputs.values(), *asked):
            strict |= _strict(binding, groups)
        if groups:
            self.groups[node.key] = groups
        if node.phase is not Phase.MAIN:
            # Closing steps run whatever happened before, with the values that exist.
            strict = {key for key in strict if self.nodes[key].phase is not Phase.MAIN}
            self.groups.pop(node.key, None)
        return frozenset(strict)


def _strict(binding: Binding, groups: list[Group]) -> set[str]:
    """Return the nodes whose results a binding needs; alternatives are added to `groups`."""
    match binding:
        case values.Output(node):
            return {node}
        case values.OneOf(options):
            ways = tuple(tuple(dict.fromkeys(source.node for source in values.sources(one))) for one in options)
            if all(ways):  # an alternative without nodes is always available
                groups.append(ways)
            return set()
        case _:
            return {key for part in values.parts(binding) for key in _strict(part, groups)}
