"""`@step`: a typed Python function as a step of pipelines."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, Unpack, overload

from penstock import codec, hints
from penstock.authoring import mapping, options, step_options
from penstock.authoring.environments import Environment
from penstock.authoring.mapping import Mappable
from penstock.authoring.step_options import StepOptions
from penstock.authoring.trace import pipeline_tracer
from penstock.authoring.trace.mapped_calls import MappedArguments
from penstock.hints import batches, json_schema, signature, streams, value_check
from penstock_core.errors import DefinitionError
from penstock_core.pipeline import ir

P = ParamSpec("P")
R = TypeVar("R")


class Step(Mappable, Generic[P, R]):
    """A step. Called inside the body of a pipeline it is recorded; anywhere else it runs the plain function.

    Attributes:
        function: the plain function.
        name: the step's name.
        settings: its options, as fields of `ir.StepSpec`.
        replacement: what a test has put in the place of the function, for calls in this process.
        calling: options that concern its calls.
    """

    def __init__(self, function: Callable[P, R], name: str, given: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.settings, self.call_options = step_options.read(given, "@step")
        self.file, self.line = signature.place(function)
        self._given = dict(given)
        self._specs: dict[str, ir.StepSpec] = {}
        self._origin: Step[..., Any] = self
        self.replacement: Callable[..., Any] | None = None
        self._local = signature.read_local(function, f"step {name!r}")

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Record a call in the pipeline whose body runs now, or run the function."""
        tracer = pipeline_tracer.active()
        if tracer is None:
            return self.called(*args, **kwargs)
        return tracer.record(self, args, kwargs)

    @property
    def origin(self) -> Step[..., Any]:
        """The step that this one is a copy of, with other options; the step itself if it is none."""
        return self._origin

    @property
    def called(self) -> Callable[..., Any]:
        """What a call in this process runs: the function, or its replacement in a test."""
        return self._origin.replacement or self.function

    def partial(self, /, *args: Any, **inputs: Any) -> Partial:
        """Bind some inputs: `train.partial(data=data).map(depth=[2, 4])`.

        Raises:
            DefinitionError: an input is unknown, or given twice.
        """
        return Partial(self, {}).partial(*args, **inputs)

    def with_options(self, **changed: Unpack[StepOptions]) -> Step[P, R]:
        """Return a copy of the step with other options: `train.with_options(retries=5)(data)`.

        Args:
            **changed: options as in `@step`; None is the default. The copy keeps its name unless `name` is given.

        Raises:
            DefinitionError: an option is unknown or has an invalid value; with the user's line.
        """
        given = {**self._given, **changed}
        copy: Step[P, R] = Step.__new__(Step)
        copy.__dict__.update(self.__dict__)
        copy.settings, copy.call_options = step_options.read(given, "with_options()")
        copy.name = given.get("name") or self.name
        copy._given, copy._specs = given, {}
        return copy

    def _record_mapped(self, given: MappedArguments) -> Any:
        return mapping.fan_out(self, given)

    @property
    def identity(self) -> object:
        """Equal for copies with the same options."""
        return (self.function, self.name, repr(sorted(self.settings.items())))

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"

    def __reduce__(self) -> str:
        return self.function.__qualname__

    @property
    def signature(self) -> signature.Signature:
        """Inputs and outputs; read when first needed, because hints may name what is defined further down.

        Of a step with the option `batch`, those of one call.
        """
        return self._signature if self.settings.get("batch") is None else self._single[0]

    @property
    def batched(self) -> frozenset[str]:
        """The inputs that the function takes as lists, because of the option `batch`; empty without it."""
        return frozenset[str]() if self.settings.get("batch") is None else self._single[1]

    @functools.cached_property
    def _single(self) -> tuple[signature.Signature, frozenset[str]]:
        return batches.single(self._signature, f"step {self.name!r}", self.file, self.line)

    def call(self, function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
        """Call the step's function, or its replacement, for one call; a batch of one if it takes several.

        Items that it yields become a list.
        """
        if not self.batched:
            found = function(**given)
            return streams.all_of(found, f"step {self.name!r}") if self.is_stream else found
        found = function(**batches.arguments([given], self.batched))
        if inspect.iscoroutine(found):
            return self._awaited(found)
        return batches.results(found, 1, f"step {self.name!r}")[0]

    async def _awaited(self, found: Any) -> Any:
        return batches.results(await found, 1, f"step {self.name!r}")[0]

    @functools.cached_property
    def is_stream(self) -> bool:
        """Whether the function yields items."""
        return streams.is_stream(self._declared, self.function)

    @functools.cached_property
    def _declared(self) -> signature.Signature:
        return self._local or signature.read(self.function, f"step {self.name!r}")

    @functools.cached_property
    def _signature(self) -> signature.Signature:
        found = streams.collected(self._declared, self.function, f"step {self.name!r}", self.file, self.line)
        signature.check_defaults(found, "input", f"step {self.name!r}", self.file, self.line)
        return found

    @property
    def environment(self) -> Environment | None:
        """The environment that it runs in, if it has one of its own."""
        return self._given.get("environment")

    @property
    def hints(self) -> dict[str, Any]:
        """Type hints of the inputs by name."""
        return {name: one.hint for name, one in self.signature.inputs.items()}

    @property
    def outputs(self) -> dict[str, Any]:
        """Type hints of the outputs by name: the fields of a NamedTuple, or `result`."""
        return dict(self.signature.outputs)

    def split(self, value: object) -> dict[str, object]:
        """Split the function's return value into outputs by name.

        Raises:
            TypeError: it does not have the declared type; the message names step and output.
        """
        named = self.signature.named
        if named is not None and not isinstance(value, named):
            raise TypeError(
                f"step {self.name!r} is declared to return {hints.show(named)}, but returned {hints.short_repr(value)}"
            )
        found = {"result": value} if named is None else {name: getattr(value, name) for name in self.signature.outputs}
        for name, one in found.items():
            problem = value_check.problem(one, self.signature.outputs[name])
            if problem is not None:
                declared = hints.show(self.signature.outputs[name])
                raise TypeError(f"output {name!r} of step {self.name!r} is declared as {declared}, but {problem}")
        return found

    def spec(self, module: str | None = None) -> ir.StepSpec:
        """The step's definition in the IR; `module` overrides the module in its entry point.

        Raises:
            DefinitionError: another process could not import the step.
        """
        entrypoint = f"{module}:{self.function.__name__}" if module else self.entrypoint
        if self.is_stream and self.batched:
            message = "yields items and has the option batch: use one of them"
            raise DefinitionError(f"step {self.name!r} {message}", self.file, self.line)
        if entrypoint not in self._specs:
            self._specs[entrypoint] = ir.StepSpec(
                name=self.name,
                entrypoint=entrypoint,
                inputs=tuple(port(one) for one in self.signature.inputs.values()),
                outputs=tuple(
                    ir.Port(name=name, type=hints.show(hint), schema=json_schema.schema(hint))
                    for name, hint in self.signature.outputs.items()
                ),
                stream=self.is_stream,
                file=self.file,
                line=self.line,
                **self.settings,
            )
        return self._specs[entrypoint]

    @property
    def entrypoint(self) -> str:
        """`module:name` under which another process finds this step.

        Raises:
            DefinitionError: it would not find it.
        """
        return self._origin._entrypoint  # a copy with other options is found under the original's name

    @functools.cached_property
    def _entrypoint(self) -> str:
        module, path = self.function.__module__, self.function.__qualname__
        why = ""
        if "<locals>" in path:
            why = "it is defined inside a function: define it at the top of the module"
        elif "<lambda>" in path:
            why = "it is a lambda: write it as a function"
        elif module == "__main__":
            why = (
                "it is defined in __main__, the script or session that runs: pass the pipeline to Client().run(), or "
                "run the file with 'penstock run FILE'"
            )
        elif (found := self._find(module, path)) is not None:
            return f"{module}:{found}"
        else:
            why = (
                f"module {module!r} has no attribute {path!r} that is this step: "
                "put @step on top of other decorators, and do not replace the name"
            )
        raise DefinitionError(f"step {self.name!r} cannot be imported by another process: {why}", self.file, self.line)

    def _find(self, module: str, path: str) -> str | None:
        loaded = sys.modules.get(module)
        found: Any = loaded
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is self:
            return path
        # `train = step(_train)`: the function has another name than the step.
        return next((name for name, one in vars(loaded).items() if one is self), None) if loaded else None


class Partial(Mappable):
    """A step with some inputs bound: call it with the others, or `map` it over them."""

    def __init__(self, step: Step[..., Any], fixed: dict[str, Any]) -> None:
        self._step = step
        self._fixed = fixed

    def __repr__(self) -> str:
        return f"<{self._step!r} with {', '.join(self._fixed) or 'no inputs'} given>"

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the step with the bound inputs and these."""
        free = [name for name in self._step.signature.inputs if name not in self._fixed]
        if len(args) > len(free):
            raise options.definition_error(f"{self!r} takes {len(free)} more inputs, but {len(args)} were given")
        self._check_new(kwargs)
        twice = next((name for name in free[: len(args)] if name in kwargs), None)
        if twice is not None:
            raise options.definition_error(f"input {twice!r} of step {self._step.name!r} is given twice")
        return self._step(**self._fixed, **dict(zip(free, args, strict=False)), **kwargs)

    def partial(self, /, *args: Any, **inputs: Any) -> Partial:
        """Bind further inputs."""
        free = [name for name in self._step.signature.inputs if name not in self._fixed]
        if len(args) > len(free):
            raise options.definition_error(f"{self!r} takes {len(free)} more inputs, but {len(args)} were given")
        named = dict(zip(free, args, strict=False))
        self._check_new(inputs)
        both = next((name for name in inputs if name in named), None)
        if both is not None:
            raise options.definition_error(f"input {both!r} of step {self._step.name!r} is given twice")
        return Partial(self._step, {**self._fixed, **named, **inputs})

    def with_options(self, **changed: Any) -> Partial:
        """The same with other options of the step; see `Step.with_options`."""
        return Partial(self._step.with_options(**changed), self._fixed)

    def _record_mapped(self, given: MappedArguments) -> Any:
        return mapping.fan_out(self._step, MappedArguments(given.mode, self._fixed, given.args, given.lists))

    def _check_new(self, inputs: dict[str, Any]) -> None:
        for name in inputs:
            if name in self._fixed:
                raise options.definition_error(f"input {name!r} of step {self._step.name!r} is given twice")
            if name not in self._step.signature.inputs:
                known = ", ".join(self._step.signature.inputs) or "none"
                raise options.definition_error(f"step {self._step.name!r} has no input {name!r} (its inputs: {known})")


def port(one: signature.Input) -> ir.Port:
    """Return the IR of an input. A default that is not plain data stays in the function only."""
    default = None
    if not one.required:
        try:
            default = codec.plain(one.default, one.hint)
        except codec.NotJsonError:
            default = None
    return ir.Port(
        name=one.name,
        type=hints.show(one.hint),
        required=one.required,
        default=default,
        schema=json_schema.schema(one.hint),
    )


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(**given: Unpack[StepOptions]) -> Callable[[Callable[P, R]], Step[P, R]]: ...


def step(function: Callable[..., Any] | None = None, /, **given: Any) -> Any:
    """Make a step of a function: `@step`, or `@step(retries=2, timeout="10m")`.

    Args:
        function: the function; its parameters are the inputs, its return hint the outputs. With `yield`, the output is
            the list of its items.
        **given: the options; times are "10m", "30s", seconds or a timedelta.
            `name`: default: the function's name.
            `retries`: further attempts after a failure.
            `retry_delay`: delay before the first retry.
            `backoff`: factor from one delay to the next.
            `max_retry_delay`: upper limit of the delays.
            `retry_jitter`: fraction of each delay (0 to 1) that is random.
            `retry_on`: exception types that are retried; default: all.
            `timeout`: time limit of one attempt.
            `queue_timeout`: time limit until an attempt starts.
            `cache`: reuse results of equal calls: True, or `Cache(ttl="7d", salt="v2")`.
            `batch`: `Batch(max=32, wait="5ms")`: the function takes lists; low-latency endpoints combine requests.
            `fresh_pod`: on Kubernetes, whether its pod runs this attempt and nothing else.
            `nodes`: how many processes run the step together, such as for distributed training; rank 0 returns.
            `resources`: `Resources(cpu=…, memory=…, gpu=…)`, of each node.
            `pool`: pool of executors.
            `priority`: higher values run first.
            `concurrency`: name of a limit, `"gpu"`, or with its size, `"gpu:2"`.
            `environment`: `Environment(…)` that it runs in; default: that of the pipeline, or what compiles it.
            `secrets`: secrets by reference: `{"DB_PASSWORD": "secret:db"}` sets a variable, `"secret:db#file"` sets it
                to the path of a file; `["db"]` is for `context().secret("db")`.
            `env`: environment variables, which are stored and shown: not for secrets.
            `env_from`: environment variables of the executor that are passed through, if its operator allows them.
            `seed`: seeds `random`, NumPy, torch and the generators of the module, with this number and the step's key.
            `trigger_rule`: which upstream outcomes let the step run: `all_succeeded`, `all_done` or `any_failed`.
            `window`: of a mapped step: how many items run concurrently.
            `min_success`: of a mapped step: how many items must succeed, as a number or a fraction.

    Raises:
        DefinitionError: an option is unknown or has an invalid value; with the user's file and line.
    """
    step_options.read(given, "@step")
    name = given.get("name")

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        if isinstance(function, Step):
            raise options.definition_error(f"{function!r} is already a step: remove one decorator")
        if not inspect.isfunction(function):
            raise options.definition_error(f"@step takes a function, not {hints.short_repr(function)}")
        own = name if name is not None else function.__name__
        if own == "<lambda>":
            raise options.definition_error("a lambda cannot be a step: write it as a function, so that it has a name")
        return Step(function, options.name(own, "step name"), given)

    return decorate if function is None else decorate(function)
