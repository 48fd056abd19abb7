"""Random pipelines and ends of attempts from a source of choices, so that hypothesis and a seed can both drive them.

`Choose` is a function: `choose(n)` gives an integer from 0 to n - 1, where 0 is the simplest choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock_core import values
from penstock_core.facts import AttemptFinished, ErrorInfo, Outcome
from penstock_core.ir import Node, Pipeline, Port, Retry, StepSpec
from penstock_core.values import ArtifactRef, Binding, Inline, Output, Stored, Value

Choose = Callable[[int], int]

BIG = "x" * 300_000
"""A result of which two do not fit into one request."""

ENDS: tuple[tuple[Outcome, str], ...] = (
    (Outcome.SUCCEEDED, ""),
    (Outcome.SUCCEEDED, ""),
    (Outcome.SUCCEEDED, ""),
    (Outcome.SUCCEEDED, ""),
    (Outcome.FAILED, "ValueError"),
    (Outcome.FAILED, "KeyError"),
    (Outcome.TIMED_OUT, "Timeout"),
    (Outcome.FAILED, "OutOfMemory"),
    (Outcome.CACHED, ""),
    (Outcome.LOST, "Lost"),
)
"""How an attempt may end by itself: the outcome and the error's type. Half of them are good."""

_BASES = {"KeyError": ("LookupError", "Exception"), "ValueError": ("Exception",)}
_RETRY_ON = ((), ("ValueError",), ("LookupError",), ("Timeout", "OutOfMemory"))


def pipeline(choose: Choose, *, nodes: int = 6) -> Pipeline:
    """A whole pipeline with 1 to `nodes` steps, each with a policy of its own; it passes `ir_check.check`."""
    made: list[Node] = []
    steps: dict[str, StepSpec] = {}
    for number in range(1 + choose(nodes)):
        spec, node = _step(choose, number, made, steps)
        steps[spec.name] = spec
        made.append(node)
    outputs: dict[str, Binding] = {}
    for number in range(choose(3)):
        first, second = (_output(choose, made, steps) for _ in range(2))
        outputs[f"o{number}"] = _binding(choose, first, second)
    ordered = tuple(reversed(made)) if choose(2) else tuple(made)
    return Pipeline(name="generated", params=(Port(name="p"),), steps=steps, nodes=ordered, outputs=outputs)


def _step(choose: Choose, number: int, earlier: list[Node], steps: dict[str, StepSpec]) -> tuple[StepSpec, Node]:
    inputs: dict[str, Binding] = {}
    after: list[str] = []
    for upstream in earlier:
        how = choose(6)
        ports = steps[upstream.step].outputs
        source = Output(upstream.key, ports[choose(len(ports))].name)
        if how == 1:
            after.append(upstream.key)
        elif how == 2:
            inputs[f"i{len(inputs)}"] = _binding(choose, source, _output(choose, earlier, steps))
        elif how == 3:
            inputs[f"i{len(inputs)}"] = source
    if not inputs and choose(3) == 2:
        inputs["i0"] = values.Param("p")
    spec = StepSpec(
        name=f"s{number}",
        entrypoint=f"m:s{number}",
        inputs=tuple(Port(name=name) for name in inputs),
        outputs=(Port(name="result"), Port(name="extra"))[: 1 + choose(2)],
        retry=Retry(
            retries=choose(3),
            delay=(0.0, 1.0, 10.0)[choose(3)],
            backoff=(1.0, 2.0, 3.0)[choose(3)],
            max_delay=(3600.0, 15.0)[choose(2)],
            jitter=(0.0, 0.5)[choose(2)],
            on=_RETRY_ON[choose(len(_RETRY_ON))],
        ),
    )
    return spec, Node(key=f"n{number}", step=spec.name, inputs=inputs, after=tuple(after))


def _output(choose: Choose, made: list[Node], steps: dict[str, StepSpec]) -> Output:
    node = made[choose(len(made))]
    ports = steps[node.step].outputs
    return Output(node.key, ports[choose(len(ports))].name)


def _binding(choose: Choose, first: Binding, second: Binding) -> Binding:
    match choose(4):
        case 1:
            return values.BoundItems((first, second))
        case 2:
            return values.BoundFields({"a": first, "b": values.BoundItems((values.Inline(1), second))})
        case 3:
            return values.BoundItems((first, values.Param("p"), first))
        case _:
            return first


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends: an index into `ENDS` and the size of its results."""

    how: int
    size: int


def end(attempt: tuple[str, str, int], spec: StepSpec, ending: Ending, at: float, mark: str) -> AttemptFinished:
    """The end of an attempt (run, key, number); `mark` makes its results unlike those of any other execution."""
    run_id, key, number = attempt
    outcome, kind = ENDS[ending.how % len(ENDS)]
    good = outcome in (Outcome.SUCCEEDED, Outcome.CACHED)
    made: dict[str, Any] = {
        "outputs": {port.name: _result(f"{key}.{number}.{port.name}#{mark}", ending.size) for port in spec.outputs}
        if good
        else {},
        "error": None if good else ErrorInfo(type=kind, message=f"by {mark}", bases=_BASES.get(kind, ())),
    }
    return AttemptFinished(
        run_id=run_id,
        key=key,
        attempt=number,
        outcome=outcome,
        metrics={"loss": float(number)} if good else {},
        executor=mark,
        started_at=max(at - 1.0, 1.0),
        finished_at=at,
        **made,
    )


def _result(text: str, size: int) -> Value:
    match size % 8:
        case 6:
            return Stored(
                ArtifactRef(sha256=text.encode().hex()[:64].ljust(64, "0"), size=1, media_type="", format=text)
            )
        case 7:
            return Inline([text, BIG])
        case _:
            return Inline(text)
