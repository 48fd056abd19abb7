"""`@pipeline`: a function that calls steps, and its compilation to the intermediate representation."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from penstock import codec, hints
from penstock.authoring import options, steps, tracing
from penstock.authoring.drafts import Draft
from penstock.authoring.tracing import Graph
from penstock.hints import check, signature
from penstock_core import ir, ir_check
from penstock_core.errors import DefinitionError


class Pipeline:
    """A pipeline. `compile()` gives its IR, `local(**inputs)` runs it in this process.

    Attributes:
        name: the pipeline's name.
        function: the plain function that calls the steps.
        file: the user's file.
        line: the line of its definition.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.file, self.line = signature.place(function)
        self._local = signature.read_local(function, f"pipeline {name!r}")

    def __repr__(self) -> str:
        return f"<pipeline {self.name!r}>"

    def __reduce__(self) -> str:
        return self.function.__qualname__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Become a part of the pipeline whose body runs now; elsewhere run in this process, as `local` does."""
        tracer = tracing.active()
        if tracer is not None:
            return tracer.inline(self, args, kwargs)
        bound = dict(zip(self.signature.inputs, args, strict=False))
        if len(args) > len(bound) or set(bound) & set(kwargs):
            raise TypeError(
                f"pipeline {self.name!r} takes the parameters {', '.join(self.signature.inputs)}, each once"
            )
        return self.local(**bound, **kwargs)

    @functools.cached_property
    def signature(self) -> signature.Signature:
        """Parameters and what is declared to be returned."""
        found = self._local or signature.read(self.function, f"pipeline {self.name!r}")
        for one in found.inputs.values():
            problem = None if one.required else check.problem(one.default, one.hint)
            if problem is not None:
                raise DefinitionError(
                    f"the default of parameter {one.name!r} of pipeline {self.name!r} does not fit its hint "
                    f"{hints.show(one.hint)}: {problem}",
                    self.file,
                    self.line,
                )
        return found

    @property
    def hints(self) -> dict[str, Any]:
        """Type hints of the parameters by name."""
        return {name: one.hint for name, one in self.signature.inputs.items()}

    @property
    def description(self) -> str:
        """The first paragraph of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n\n")[0].strip()

    def compile(self) -> ir.Pipeline:
        """Compile to the IR.

        Raises:
            DefinitionError: something is wrong; with the user's file and line.
        """
        graph = tracing.trace(self)
        compiled = ir.Pipeline(
            name=self.name,
            description=self.description,
            params=tuple(self.parameter(one) for one in self.signature.inputs.values()),
            steps={name: dataclasses.replace(one.spec(), name=name) for name, one in graph.steps.items()},
            nodes=tuple(_node(draft) for draft in graph.drafts),
            outputs=graph.outputs,
            file=self.file,
            line=self.line,
        )
        ir_check.check(compiled)
        return dataclasses.replace(compiled, nodes=tuple(_node(draft) for draft in in_order(graph)))

    def local(self, **inputs: Any) -> Any:
        """Run the whole pipeline in this process, step by step, with live objects; for tests and for debugging.

        Steps get the very objects that others return, so one that changes its input in place changes it for all;
        on the platform each has its own copy. Time limits and resources are not applied, retries are.

        Returns:
            What the pipeline returns, with values in the place of references.

        Raises:
            InputError: the inputs do not fit.
            DefinitionError: the pipeline is wrong.
            Exception: whatever a step raised last, with a note that names the step.
        """
        # Only those who run here need it.
        from penstock.authoring import local

        return local.run(self, tracing.trace(self), inputs)

    def parameter(self, one: signature.Input) -> ir.Port:
        """A parameter as the IR says it.

        Raises:
            DefinitionError: its default cannot travel as JSON.
        """
        if not one.required:
            try:
                codec.plain(one.default, one.hint)
            except codec.NotJson as error:
                raise DefinitionError(
                    f"the default of parameter {one.name!r} of pipeline {self.name!r} must be plain data, because it "
                    f"travels as JSON, but {error}",
                    self.file,
                    self.line,
                ) from error
        return steps.port(one)


def _node(draft: Draft) -> ir.Node:
    return ir.Node(
        key=draft.key,
        step=draft.step,
        inputs=draft.inputs,
        after=tuple(draft.after),
        file=draft.file,
        line=draft.line,
    )


def in_order(graph: Graph) -> list[Draft]:
    """The calls in an order that runs: as they were made, except where `.after` names a later one.

    Raises:
        DefinitionError: there is none.
    """
    drafts = {draft.key: draft for draft in graph.drafts}
    position = {key: index for index, key in enumerate(drafts)}
    if all(position[key] < position[draft.key] for draft in graph.drafts for key in draft.after):
        return graph.drafts
    done: dict[str, Draft] = {}
    waiting = dict.fromkeys(reversed(drafts))
    while waiting:
        # Depth first from the earliest that is left; a key that is met again on its own path closes a circle.
        path = [waiting.popitem()[0]]
        while path:
            draft = drafts[path[-1]]
            needs = next((key for key in draft.needs() if key not in done), None)
            if needs is None:
                done[path.pop()] = draft
                waiting.pop(draft.key, None)
            elif needs in path:
                circle = " <- ".join([*path[path.index(needs) :], needs])
                raise DefinitionError(f"steps wait for each other in a circle: {circle}", draft.file, draft.line)
            else:
                path.append(needs)
    return list(done.values())


@overload
def pipeline(function: Callable[..., Any], /) -> Pipeline: ...


@overload
def pipeline(*, name: str | None = None) -> Callable[[Callable[..., Any]], Pipeline]: ...


def pipeline(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Make a pipeline of a function that calls steps: `@pipeline`, or `@pipeline(name="training")`.

    Args:
        function: the function; its parameters are the pipeline's.
        name: the pipeline's name; default the function's.

    Raises:
        DefinitionError: it is no plain function, or the name is not valid.
    """
    if name is not None:
        options.name(name, "pipeline name")

    def decorate(function: Callable[..., Any]) -> Pipeline:
        if isinstance(function, Pipeline | steps.Step):
            raise options.wrong(f"{function!r} cannot be made a pipeline: remove one of the decorators")
        if not inspect.isfunction(function):
            raise options.wrong(f"@pipeline takes a function, not {hints.brief(function)}")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise options.wrong(f"pipeline {function.__name__!r} must be a plain function: no async, no yield")
        return Pipeline(function, options.name(name or function.__name__, "pipeline name"))

    return decorate if function is None else decorate(function)
