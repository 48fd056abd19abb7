"""Tests of steps and pipelines: a context of their own, and steps that are replaced.

    from penstock import testing

    def test_training():
        with testing.isolate() as isolated:
            isolated.replace(load, returns=[1.0, 2.0])
            assert training.local(rows=2)["mean"] == 1.5
            assert isolated.calls(load) == [{"rows": 2}]
            assert isolated.logged.metrics == {"loss": 0.5}

In pytest the fixture `penstock_testing` does that for a test, without an import.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from penstock.authoring import Step
from penstock.step_context.contexts import Context, MemorySink, use_context

_UNSET: Any = object()


class Isolated:
    """A test's own context, and the steps that it has replaced.

    Attributes:
        context: what `context()` returns outside of steps, for instance in a step that is called as a function.
        logged: what was logged through it and by the steps of `local()` runs: `metrics`, `params`, `tags`, `artifacts`,
            `models`, and the `history` of the metrics.
    """

    def __init__(self, context: Context, logged: MemorySink) -> None:
        self.context = context
        self.logged = logged
        self._replaced: dict[Step[..., Any], Callable[..., Any] | None] = {}
        self._calls: dict[Step[..., Any], list[dict[str, Any]]] = {}

    def replace(
        self,
        step: Step[..., Any],
        function: Callable[..., Any] | None = None,
        *,
        returns: Any = _UNSET,
        raises: BaseException | None = None,
    ) -> None:
        """Replace what a step does in this process, in direct calls and in `local()` runs, until the end of the test.

        It is replaced in all pipelines, with all options. The result of a `local()` run must have the declared type, as
        that of the step itself.

        Args:
            step: the step.
            function: is called instead, with the inputs by name.
            returns: what the step returns.
            raises: what the step raises.

        Raises:
            TypeError: `step` is not a step, or not exactly one of `function`, `returns` and `raises` is given.
        """
        if not isinstance(step, Step):  # pyright: ignore[reportUnnecessaryIsInstance] - tests are not always checked
            raise TypeError(f"replace() takes a step, not {step!r}: pass what @step has made")
        if sum((function is not None, returns is not _UNSET, raises is not None)) != 1:
            raise TypeError(f"replace({step.name}): pass a function, or returns=…, or raises=…")
        origin = step.origin
        self._replaced.setdefault(origin, origin.replacement)
        calls = self._calls.setdefault(origin, [])

        def call(**inputs: Any) -> Any:
            calls.append(inputs)
            if raises is not None:
                raise raises
            return function(**inputs) if function is not None else returns

        origin.replacement = _with_signature_of(origin.function, call)

    def calls(self, step: Step[..., Any]) -> list[dict[str, Any]]:
        """Return the inputs of each call of a replaced step, in order, with the defaults of those that were not given.

        Raises:
            LookupError: the step was not replaced.
        """
        if step.origin not in self._calls:
            raise LookupError(f"calls({step.name}): the step was not replaced in this test")
        return list(self._calls[step.origin])

    def restore(self) -> None:
        """Undo all replacements."""
        for step, before in self._replaced.items():
            step.replacement = before
        self._replaced.clear()


@contextmanager
def isolate(**fields: Any) -> Generator[Isolated]:
    """Give the tests in a `with` block a context of their own; replaced steps are restored at its end.

    Args:
        **fields: fields of the context: `run_id`, `step`, `attempt`, `pipeline`, `project`, `seed`.
    """
    logged = MemorySink()
    with use_context(Context(sink=logged, **fields)) as context:
        isolated = Isolated(context, logged)
        try:
            yield isolated
        finally:
            isolated.restore()


def _with_signature_of(function: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes the arguments of `function`, and calls `call` with all of them by name."""
    signature = inspect.signature(function)

    def bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        found = signature.bind(*args, **kwargs)
        found.apply_defaults()
        return dict(found.arguments)

    if inspect.iscoroutinefunction(function):

        async def replaced_coroutine(*args: Any, **kwargs: Any) -> Any:
            result = call(**bound(args, kwargs))
            return await result if inspect.isawaitable(result) else result

        return replaced_coroutine

    def replaced(*args: Any, **kwargs: Any) -> Any:
        return call(**bound(args, kwargs))

    return replaced
