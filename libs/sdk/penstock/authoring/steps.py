"""`@step`: a typed Python function as a step of pipelines."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from penstock import codec, hints
from penstock.authoring import options, tracing
from penstock.authoring.options import Duration, Resources
from penstock.hints import check, schema, signature
from penstock_core import ir
from penstock_core.errors import DefinitionError

P = ParamSpec("P")
R = TypeVar("R")

RetryOn = type[BaseException] | str | Sequence[type[BaseException] | str]


class Step(Generic[P, R]):
    """A step. Called inside the body of a pipeline it is recorded; anywhere else it runs the plain function.

    Attributes:
        function: the plain function.
        name: the step's name.
        settings: its options, as fields of `ir.StepSpec`.
    """

    def __init__(self, function: Callable[P, R], name: str, settings: Mapping[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.settings = dict(settings)
        self.file, self.line = signature.place(function)
        self._specs: dict[str, ir.StepSpec] = {}
        self._local = signature.read_local(function, f"step {name!r}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Record a call in the pipeline whose body runs now, or run the function."""
        tracer = tracing.active()
        if tracer is None:
            return self.function(*args, **kwargs)
        return tracer.record(self, args, kwargs)

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"

    def __reduce__(self) -> str:
        return self.function.__qualname__

    @functools.cached_property
    def signature(self) -> signature.Signature:
        """Inputs and outputs; read when first needed, because hints may name what is defined further down."""
        found = self._local or signature.read(self.function, f"step {self.name!r}")
        for one in found.inputs.values():
            problem = None if one.required else check.problem(one.default, one.hint)
            if problem is not None:
                raise DefinitionError(
                    f"the default of input {one.name!r} of step {self.name!r} does not fit its hint "
                    f"{hints.show(one.hint)}: {problem}",
                    self.file,
                    self.line,
                )
        return found

    @property
    def hints(self) -> dict[str, Any]:
        """Type hints of the inputs by name."""
        return {name: one.hint for name, one in self.signature.inputs.items()}

    @property
    def outputs(self) -> dict[str, Any]:
        """Type hints of the outputs by name: the fields of a NamedTuple, or `result`."""
        return dict(self.signature.outputs)

    def split(self, value: object) -> dict[str, object]:
        """The outputs by name, from what the function returned.

        Raises:
            TypeError: it is not what the function's hint declares; names step and output.
        """
        named = self.signature.named
        if named is not None and not isinstance(value, named):
            raise TypeError(
                f"step {self.name!r} is declared to return {hints.show(named)}, but returned {hints.brief(value)}"
            )
        found = {"result": value} if named is None else {name: getattr(value, name) for name in self.signature.outputs}
        for name, one in found.items():
            problem = check.problem(one, self.signature.outputs[name])
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
        if entrypoint not in self._specs:
            # Only those who compile need it.
            from penstock.authoring import code

            self._specs[entrypoint] = ir.StepSpec(
                name=self.name,
                entrypoint=entrypoint,
                inputs=tuple(port(one) for one in self.signature.inputs.values()),
                outputs=tuple(
                    ir.Port(name=name, type=hints.show(hint), schema=schema.schema(hint))
                    for name, hint in self.signature.outputs.items()
                ),
                code=code.of(self.function).digest,
                file=self.file,
                line=self.line,
                **self.settings,
            )
        return self._specs[entrypoint]

    @functools.cached_property
    def entrypoint(self) -> str:
        """`module:name` under which another process finds this step.

        Raises:
            DefinitionError: it would not find it.
        """
        module, path = self.function.__module__, self.function.__qualname__
        why = ""
        if "<locals>" in path:
            why = "it is defined inside a function: define it at the top of the module"
        elif "<lambda>" in path:
            why = "it is a lambda: write it as a function"
        elif module == "__main__":
            why = "it is defined in the script that was started: run the file with 'penstock run FILE' instead"
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


def port(one: signature.Input) -> ir.Port:
    """An input as the IR says it. A default that is no plain data is known to the function only."""
    default = None
    if not one.required:
        try:
            default = codec.plain(one.default, one.hint)
        except codec.NotJson:
            default = None
    return ir.Port(
        name=one.name,
        type=hints.show(one.hint),
        required=one.required,
        default=default,
        schema=schema.schema(one.hint),
    )


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay: Duration = 0,
    backoff: float = 1.0,
    retry_on: RetryOn = (),
    timeout: Duration | None = None,
    queue_timeout: Duration | None = None,
    cache: bool = False,
    resources: Resources | None = None,
    pool: str = "default",
    priority: int = 0,
    concurrency: str | None = None,
    environment: str | None = None,
    secrets: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...


def step(function: Callable[..., Any] | None = None, /, **given: Any) -> Any:
    """Make a step of a function: `@step`, or `@step(retries=2, timeout="10m")`.

    Args:
        function: the function; its parameters are the inputs, its return hint the outputs.
        **given: the options. `name` (default: the function's), `retries` further attempts after a failure,
            `retry_delay` before the first of them, `backoff` factor from one delay to the next, `retry_on` exception
            types that are retried (default all), `timeout` of one attempt, `queue_timeout` before it starts, `cache`
            results of equal inputs, `resources`, `pool` of executors, `priority` (higher first), `concurrency` name of
            a limit, `environment`, `secrets` by name, `env` variables. Times are "10m", "30s", seconds or a timedelta.

    Raises:
        DefinitionError: an option is unknown or has a value it may not have; with the user's file and line.
    """
    settings = _settings(given)
    name = given.get("name")
    if name is not None:
        options.name(name, "step name")

    def decorate(function: Callable[..., Any]) -> Step[..., Any]:
        if isinstance(function, Step):
            raise options.wrong(f"{function!r} is a step already: remove one of the decorators")
        if not inspect.isfunction(function):
            raise options.wrong(f"@step takes a function, not {hints.brief(function)}")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise options.wrong(f"step {function.__name__!r} uses yield: return a list instead")
        own = name if name is not None else function.__name__
        if own == "<lambda>":
            raise options.wrong("a lambda cannot be a step: write it as a function, so that it has a name")
        return Step(function, options.name(own, "step name"), settings)

    return decorate if function is None else decorate(function)


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options as fields of `ir.StepSpec`."""
    unknown = next((name for name in given if name not in _OPTIONS), None)
    if unknown is not None:
        close = difflib.get_close_matches(unknown, _OPTIONS, n=1)
        guess = f": did you mean {close[0]!r}?" if close else f" (there are: {', '.join(_OPTIONS)})"
        raise options.wrong(f"@step has no option {unknown!r}{guess}")
    read = {name: _OPTIONS[name](value) for name, value in given.items() if value is not None and name != "name"}
    retry = {_RETRY[name]: read.pop(name) for name in list(read) if name in _RETRY}
    return {**read, "retry": ir.Retry(**retry)}


def _resources(value: Any) -> ir.Resources:
    if not isinstance(value, Resources):
        raise options.wrong(f"resources must be Resources(cpu=…, memory=…, gpu=…), not {value!r}")
    return value.spec()


_RETRY = {"retries": "retries", "retry_delay": "delay", "backoff": "backoff", "retry_on": "on"}
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "name": lambda value: value,
    "retries": lambda value: options.whole(value, "retries", 0, 1000),
    "retry_delay": lambda value: options.duration(value, "retry_delay", zero=True),
    "backoff": lambda value: options.number(value, "backoff", 1.0),
    "retry_on": options.exceptions,
    "timeout": lambda value: options.duration(value, "timeout"),
    "queue_timeout": lambda value: options.duration(value, "queue_timeout"),
    "cache": lambda value: options.flag(value, "cache"),
    "resources": _resources,
    "pool": lambda value: options.name(value, "pool"),
    "priority": lambda value: options.whole(value, "priority", -1000, 1000),
    "concurrency": lambda value: options.name(value, "concurrency"),
    "environment": lambda value: options.name(value, "environment"),
    "secrets": lambda value: options.texts(value, "secrets"),
    "env": options.environment_variables,
}
