"""`@pipeline`: a function that calls steps, and its compilation to the intermediate representation."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from penstock import codec, hints
from penstock.authoring import environments, limit_sizes, options, steps
from penstock.authoring.environments import Environment
from penstock.authoring.options import Duration
from penstock.authoring.trace import pipeline_tracer
from penstock.authoring.trace.drafts import Definition, Draft
from penstock.authoring.trace.pipeline_tracer import Graph
from penstock.hints import signature
from penstock_core.environments.declaration import EnvironmentDeclaration
from penstock_core.errors import DefinitionError
from penstock_core.pipeline import ir, ir_check

if TYPE_CHECKING:
    from penstock.authoring.deployments import Deployment, Trigger
    from penstock.authoring.local_runs.local_answers import LocalAnswers

_COMING = ("answers", "events", "runs")
"""Arguments of `local` that answer the waits of a run."""


class Pipeline:
    """A pipeline. `compile()` returns its IR, `local(**inputs)` runs it in this process.

    Attributes:
        name: the pipeline's name.
        function: the plain function that calls the steps.
        settings: its options, as fields of `ir.Pipeline`.
        file: the user's file.
        line: the line of its definition.
    """

    def __init__(self, function: Callable[..., Any], name: str, settings: Mapping[str, Any] | None = None) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.settings = dict(settings or {})
        self.environment: Environment | None = self.settings.pop("environment", None)
        self.file, self.line = signature.place(function)
        self._local = signature.read_local(function, f"pipeline {name!r}")

    def __repr__(self) -> str:
        return f"<pipeline {self.name!r}>"

    def __reduce__(self) -> str:
        return self.function.__qualname__

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Inline the pipeline into the one being compiled; elsewhere, run it in this process, as `local` does."""
        tracer = pipeline_tracer.active()
        if tracer is not None:
            return tracer.inline(self, args, kwargs)
        bound = dict(zip(self.signature.inputs, args, strict=False))
        if len(args) > len(bound) or set(bound) & set(kwargs):
            raise TypeError(
                f"pipeline {self.name!r} takes the parameters {', '.join(self.signature.inputs)}, each once"
            )
        return self.local(**bound, **kwargs)

    @property
    def signature(self) -> signature.Signature:
        """Parameters and what is declared to be returned."""
        return self._signature

    @functools.cached_property
    def _signature(self) -> signature.Signature:
        found = self._local or signature.read(self.function, f"pipeline {self.name!r}")
        signature.check_defaults(found, "parameter", f"pipeline {self.name!r}", self.file, self.line)
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
            DefinitionError: the pipeline is not valid; with the user's file and line.
        """
        from penstock.authoring import step_code  # imported only for compilations

        return step_code.identify(self.assemble(pipeline_tracer.trace(self)), self.function)

    def assemble(self, graph: Graph, spec: Callable[[str, Definition], ir.StepSpec] | None = None) -> ir.Pipeline:
        """Return the IR of a traced pipeline; `spec` overrides how steps are defined.

        Raises:
            DefinitionError: the pipeline is not valid; with the user's file and line.
        """
        spec = spec or (lambda name, one: dataclasses.replace(one.spec(), name=name))
        named = {name: spec(name, one) for name, one in graph.steps.items()}
        if self.environment is not None:
            named = {name: in_environment(one, self.environment.name) for name, one in named.items()}
        compiled = ir.Pipeline(
            name=self.name,
            description=self.description,
            params=tuple(self.parameter(one) for one in self.signature.inputs.values()),
            steps=named,
            environments=self._environments(graph),
            nodes=tuple(draft.node() for draft in graph.drafts),
            outputs=graph.outputs,
            file=self.file,
            line=self.line,
            **self.settings,
        )
        ir_check.check(compiled)
        limit_sizes.check(compiled)
        return dataclasses.replace(compiled, nodes=tuple(draft.node() for draft in in_order(graph)))

    def _environments(self, graph: Graph) -> tuple[EnvironmentDeclaration, ...]:
        """The declarations of the environments that steps run in.

        Raises:
            DefinitionError: one is not valid, or two have the same name.
        """
        found: dict[str, EnvironmentDeclaration] = {}
        for one in (self.environment, *(getattr(step, "environment", None) for step in graph.steps.values())):
            if not isinstance(one, Environment):
                continue
            declared = one.declaration()
            if found.setdefault(one.name, declared) != declared:
                raise DefinitionError(f"two environments have the name {one.name!r}", self.file, self.line)
        return tuple(found.values())

    def deploy(self, name: str, *, triggers: Sequence[Trigger] = (), **settings: Any) -> Deployment:
        """Declare a deployment: when and how the pipeline runs by itself.

        `penstock deploy FILE` registers the pipelines of a file and applies its deployments;
        `Client.deployments.apply` applies one.

        Args:
            name: of the deployment, unique in a project.
            triggers: `Cron`, `On`, `Endpoint` and `Webhook` objects.
            **settings: `version` (default: the latest published one at each run), `inputs` as JSON by parameter,
                `labels`, `priority`, `deadline`, `description`, `partitions` (a `Partitions` object), `notify`,
                `late`.

        Raises:
            DefinitionError: the name, a trigger or a setting is not valid; with the user's file and line.
        """
        from penstock.authoring import deployments  # imported only for deployments

        return deployments.declare(self, name, triggers, settings)

    def local(self, /, **inputs: Any) -> Any:
        """Run the pipeline in this process, one step at a time, for tests and debugging.

        Conditions, retries and mapped steps work as on the platform. Steps receive the very objects that other steps
        return; on the platform each step has its own copy. Time-outs, resources and the cache do not apply, and
        sleeps return at once.

        Args:
            **inputs: the parameters; and, where no parameter has that name, `answers` to `ask` by key of the step or
                question, `events` (their data) for `wait_for_event` by key or type, and `runs` (their outputs) for
                `run_pipeline` by key or name of the pipeline.

        Returns:
            What the pipeline returns, with the results of its steps.

        Raises:
            InputError: the inputs do not fit, or an answer is missing.
            DefinitionError: the pipeline is not valid.
            Exception: the last exception of the step that made the run fail, with a note that names the step.
        """
        # Imported only for local runs.
        from penstock.authoring.local_runs.local_answers import LocalAnswers

        given = {name: inputs.pop(name) for name in _COMING if name in inputs and name not in self.signature.inputs}
        return self.run_locally(inputs, LocalAnswers(**given))

    def run_locally(self, inputs: Mapping[str, Any], answers: LocalAnswers) -> Any:
        """Run it in this process; see `local`."""
        from penstock.authoring.local_runs import local_run  # imported only for local runs

        return local_run.run(self, pipeline_tracer.trace(self), inputs, answers)

    def parameter(self, one: signature.Input) -> ir.Port:
        """Return the IR of a parameter.

        Raises:
            DefinitionError: its default cannot travel as JSON.
        """
        if not one.required:
            try:
                codec.plain(one.default, one.hint)
            except codec.NotJsonError as error:
                raise DefinitionError(
                    f"the default of parameter {one.name!r} of pipeline {self.name!r} must be plain data (it is sent "
                    f"as JSON), but {error}",
                    self.file,
                    self.line,
                ) from error
        return steps.port(one)


def in_environment(spec: ir.StepSpec, name: str) -> ir.StepSpec:
    """Return a step with the environment of its pipeline, unless it has its own."""
    if spec.kind is not ir.Kind.FUNCTION or spec.environment is not None:
        return spec
    return dataclasses.replace(spec, environment=name)


def in_order(graph: Graph) -> list[Draft]:
    """The calls in an order that runs: as they were made, except where `.after` names a later one.

    Raises:
        DefinitionError: there is none.
    """
    late = [draft for draft in graph.drafts if draft.phase is not ir.Phase.MAIN]
    if late:
        main = [draft for draft in graph.drafts if draft.phase is ir.Phase.MAIN]
        graph = dataclasses.replace(graph, drafts=[*main, *late])
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
                raise DefinitionError(f"steps wait for each other in a cycle: {circle}", draft.file, draft.line)
            else:
                path.append(needs)
    return list(done.values())


@overload
def pipeline(function: Callable[..., Any], /) -> Pipeline: ...


@overload
def pipeline(
    *,
    name: str | None = None,
    deadline: Duration | None = None,
    max_active_runs: int | None = None,
    overlap: Literal["queue", "skip", "cancel_previous", "buffer_one"] = "queue",
    environment: Environment | None = None,
) -> Callable[[Callable[..., Any]], Pipeline]: ...


def pipeline(function: Callable[..., Any] | None = None, /, **given: Any) -> Any:
    """Make a pipeline of a function that calls steps: `@pipeline`, or `@pipeline(name="training", deadline="2h")`.

    Args:
        function: the function; its parameters are the pipeline's.
        **given: the options. `name` (default: the function's), `deadline` after which an unfinished run fails, counted
            from its request; `max_active_runs`, the limit of concurrent runs; `overlap`, what happens to a run over
            that limit: it waits (`queue`), is skipped (`skip`), cancels the oldest run (`cancel_previous`), or waits
            unless another run waits already (`buffer_one`); `environment`, in which its steps run, unless they have
            one of their own. Times are "10m", "30s", seconds or a timedelta.

    Raises:
        DefinitionError: it is no plain function, or an option is unknown or not valid; with the user's file and line.
    """
    settings = _settings(given)
    name = given.get("name")

    def decorate(function: Callable[..., Any]) -> Pipeline:
        if isinstance(function, Pipeline | steps.Step):
            raise options.definition_error(f"{function!r} has two decorators: remove one")
        if not inspect.isfunction(function):
            raise options.definition_error(f"@pipeline takes a function, not {hints.short_repr(function)}")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise options.definition_error(
                f"pipeline {function.__name__!r} must be a plain function: no async, no yield"
            )
        return Pipeline(function, options.name(name or function.__name__, "pipeline name"), settings)

    return decorate if function is None else decorate(function)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of `ir.Pipeline`."""
    options.known(given, _OPTIONS, "@pipeline")
    read: dict[str, Any] = {}
    for name, value in given.items():
        if value is not None:
            read.update(_OPTIONS[name](value))
    if read.get("overlap", ir.Overlap.QUEUE) is not ir.Overlap.QUEUE and "max_active" not in read:
        raise options.definition_error(
            f"overlap={str(read['overlap'])!r} requires max_active_runs, the number of runs that can be active "
            f"at the same time"
        )
    return read


def _overlap(value: Any) -> dict[str, Any]:
    if not isinstance(value, str) or value not in list(ir.Overlap):
        raise options.definition_error(
            f"overlap must be one of {', '.join(repr(one.value) for one in ir.Overlap)}, not {value!r}"
        )
    return {"overlap": ir.Overlap(value)}


def _environment(value: Any) -> dict[str, Any]:
    environments.environment(value)
    return {"environment": value}


def _name(value: Any) -> dict[str, Any]:
    options.name(value, "pipeline name")
    return {}


_OPTIONS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "name": _name,
    "deadline": lambda value: {"deadline": options.duration(value, "deadline")},
    "max_active_runs": lambda value: {"max_active": options.whole(value, "max_active_runs", 1, 100_000)},
    "overlap": _overlap,
    "environment": _environment,
}
