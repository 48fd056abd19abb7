"""Random pipelines and ends of attempts from a source of choices, driven by Hypothesis or by a seed.

`Choose` is a function: `choose(n)` returns an integer from 0 to n - 1, where 0 is the simplest choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock_core.facts import AttemptFinished, ErrorInfo, Outcome
from penstock_core.pipeline import conditions, values
from penstock_core.pipeline.conditions import Condition
from penstock_core.pipeline.ir import (
    Kind,
    MapSpec,
    Node,
    Overlap,
    Phase,
    Pipeline,
    Port,
    Resources,
    Retry,
    Rule,
    StepSpec,
)
from penstock_core.pipeline.values import ArtifactRef, Binding, Inline, Output, Stored, Value

Choose = Callable[[int], int]

BIG = "x" * 300_000
"""A result so large that two do not fit into one request."""

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
"""How an attempt may end by itself: the outcome and the type of the error. Half of them succeed."""

SIZES = 16
"""Kinds of results that `end` creates."""

_BASES = {"KeyError": ("LookupError", "Exception"), "ValueError": ("Exception",)}
_RETRY_ON = ((), ("ValueError",), ("LookupError",), ("Timeout", "OutOfMemory"))
_WAITS = (Kind.SLEEP, Kind.ASK, Kind.EVENT, Kind.RUN)
_RULES = (Rule.ALL_SUCCEEDED,) * 5 + (Rule.ALL_DONE, Rule.ANY_FAILED)
_COMPARISONS: tuple[conditions.Operator, ...] = ("gt", "eq", "ne", "le", "lt", "ge")
_PATHS: tuple[tuple[int | str, ...], ...] = ((0,), (1,), ("a",), (-1, 0))


@dataclass(slots=True)
class _Maker:
    """Builds the parts of a pipeline in order; `plain` includes only steps, inputs and retries."""

    choose: Choose
    made: list[Node]
    steps: dict[str, StepSpec]
    plain: bool = False

    def one(self, *, of: int) -> bool:
        """Return True in one of `of` cases, never in the simplest one."""
        return not self.plain and self.choose(of) == of - 1

    def output(self, nodes: list[Node]) -> Output:
        node = nodes[self.choose(len(nodes))]
        ports = self.steps[node.step].outputs
        return Output(node.key, ports[self.choose(len(ports))].name)

    def binding(self, first: Binding, second: Binding) -> Binding:
        match self.choose(4 if self.plain else 8):
            case 1:
                return values.BoundItems((first, second))
            case 2:
                return values.BoundFields({"a": first, "b": values.BoundItems((values.Inline(1), second))})
            case 3:
                return values.BoundItems((first, values.Param("p"), first))
            case 4:
                return values.OneOf((first, second))
            case 5:
                return values.OneOf((first, values.Inline("otherwise")))
            case 6:
                return values.Pick(first, _PATHS[self.choose(len(_PATHS))])
            case _:
                return first

    def condition(self, nodes: list[Node], depth: int = 2) -> Condition:
        one = self.binding(self.output(nodes), self.output(nodes))
        match self.choose(6 if depth else 3):
            case 0:
                return conditions.Truth(one)
            case 1 | 2:
                name = _COMPARISONS[self.choose(len(_COMPARISONS))]
                return conditions.Compare(name, one, Inline(self.choose(4)))
            case 3:
                return conditions.Not(self.condition(nodes, depth - 1))
            case 4:
                return conditions.AllOf((self.condition(nodes, depth - 1), self.condition(nodes, depth - 1)))
            case _:
                return conditions.AnyOf((self.condition(nodes, depth - 1), self.condition(nodes, depth - 1)))

    def step(self, number: int) -> tuple[StepSpec, Node]:
        late = bool(self.made) and self.one(of=8)
        phase = (Phase.ON_EXIT, Phase.ON_FAILURE)[self.choose(2)] if late else Phase.MAIN
        earlier = [node for node in self.made if late or node.phase is Phase.MAIN]
        kind = _WAITS[self.choose(len(_WAITS))] if self.one(of=8) else Kind.FUNCTION
        inputs, after = self.inputs(earlier)
        if kind in (Kind.SLEEP, Kind.ASK, Kind.EVENT):
            after += [source.node for binding in inputs.values() for source in values.sources(binding)]
            inputs = self.waits(kind, earlier)
        mapped = self.mapped(inputs, earlier) if kind in (Kind.FUNCTION, Kind.RUN) and self.one(of=3) else None
        if late and self.one(of=3):
            inputs["ending"] = values.Ending(("outcome", "error")[self.choose(2)])
            inputs = inputs if kind in (Kind.FUNCTION, Kind.RUN) else {k: v for k, v in inputs.items() if k != "ending"}
        spec = self.spec(f"s{number}", kind, tuple(inputs))
        node = Node(
            key=f"n{number}",
            step=spec.name,
            inputs=inputs,
            after=tuple(dict.fromkeys(after)),
            when=self.condition(earlier) if earlier and self.one(of=5) else None,
            rule=_RULES[self.choose(len(_RULES))] if not self.plain else Rule.ALL_SUCCEEDED,
            phase=phase,
            mapped=mapped,
        )
        return spec, node

    def inputs(self, earlier: list[Node]) -> tuple[dict[str, Binding], list[str]]:
        inputs: dict[str, Binding] = {}
        after: list[str] = []
        for upstream in earlier:
            how = self.choose(6)
            ports = self.steps[upstream.step].outputs
            source = Output(upstream.key, ports[self.choose(len(ports))].name)
            if how == 1:
                after.append(upstream.key)
            elif how == 2:
                inputs[f"i{len(inputs)}"] = self.binding(source, self.output(earlier))
            elif how == 3:
                inputs[f"i{len(inputs)}"] = source
        if not inputs and self.choose(3) == 2:
            inputs["i0"] = values.Param("p")
        return inputs, after

    def waits(self, kind: Kind, earlier: list[Node]) -> dict[str, Binding]:
        """Return inputs of a waiting step; a result of another step may or may not be usable."""
        if kind is Kind.SLEEP:
            seconds = self.output(earlier) if earlier and self.one(of=3) else Inline((0, 5, 100)[self.choose(3)])
            return {"seconds": seconds}
        if kind is Kind.ASK:
            default: dict[str, Binding] = {"default": Inline("yes")} if self.choose(2) else {}
            return {"question": Inline("ship it?"), "choices": Inline(["yes", "no"]), **default}
        return {"type": Inline("com.acme.done"), "key": values.Param("p")}

    def mapped(self, inputs: dict[str, Binding], earlier: list[Node]) -> MapSpec:
        over = [name for name in inputs if self.choose(3) == 0][:2]
        if not over or self.choose(3):
            inputs["m"] = self.list(earlier)
            over = [*over[:1], "m"] if self.choose(4) == 3 else ["m"]
        literal = [name for name in over if isinstance(inputs[name], Inline | values.BoundItems)]
        return MapSpec(
            over=tuple(over),
            mode="grid" if self.choose(3) == 2 or len(literal) > 1 else "zip",
            window=(256, 1, 2, 3, 4, 8)[self.choose(6)],
            min_success=(None, None, 0.5, 1, 0)[self.choose(5)],
        )

    def list(self, earlier: list[Node]) -> Binding:
        fans = [node for node in earlier if node.mapped is not None]
        match self.choose(4):
            case 1:
                return values.Param("list")
            case 2 if earlier:
                return self.output(fans or earlier)
            case 3:
                items = values.BoundItems((values.Param("p"), *((self.output(earlier),) if earlier else ())))
                lists = values.BoundLists((values.Param("list"), items, *(Output(node.key) for node in fans[:1])))
                return lists if len(earlier) % 2 else items
            case _:
                return Inline([f"e{number}" for number in range(self.choose(10))])

    def spec(self, name: str, kind: Kind, inputs: tuple[str, ...]) -> StepSpec:
        choose = self.choose
        limited = self.one(of=4)
        return StepSpec(
            name=name,
            entrypoint=f"m:{name}",
            kind=kind,
            inputs=tuple(Port(name=port) for port in inputs),
            outputs=(Port(name="result"), Port(name="extra"))[: 1 + choose(2)],
            retry=Retry(
                retries=choose(3),
                delay=(0.0, 1.0, 10.0)[choose(3)],
                backoff=(1.0, 2.0, 3.0)[choose(3)],
                max_delay=(3600.0, 15.0)[choose(2)],
                jitter=(0.0, 0.5)[choose(2)],
                on=_RETRY_ON[choose(len(_RETRY_ON))],
            ),
            timeout=(None, 20.0)[choose(2)] if kind is not Kind.FUNCTION else None,
            queue_timeout=(30.0, 300.0)[choose(2)] if self.one(of=6) else None,
            concurrency=("gpu", "licence")[choose(2)] if limited else None,
            concurrency_max=(None, 1, 2)[choose(3)] if limited else None,
            resources=Resources(memory=1_000, memory_growth=2.0) if self.one(of=4) else Resources(),
            target="other" if kind is Kind.RUN else "",
        )


def pipeline(choose: Choose, *, nodes: int = 6, plain: bool = False) -> Pipeline:
    """Return a pipeline with 1 to `nodes` steps, each with its own policy; it passes `ir_check.check`."""
    maker = _Maker(choose, [], {}, plain)
    for number in range(1 + choose(nodes)):
        spec, node = maker.step(number)
        maker.steps[spec.name] = spec
        maker.made.append(node)
    outputs: dict[str, Binding] = {}
    proper = [node for node in maker.made if node.phase is Phase.MAIN]
    for number in range(choose(3)):
        first, second = (maker.output(proper) for _ in range(2))
        outputs[f"o{number}"] = maker.binding(first, second)
    return Pipeline(
        name="generated",
        params=(Port(name="p"), Port(name="list")),
        steps=maker.steps,
        nodes=tuple(reversed(maker.made)) if choose(2) else tuple(maker.made),
        outputs=outputs,
        deadline=(60.0, 600.0)[choose(2)] if maker.one(of=10) else None,
        max_active=1 if maker.one(of=6) else None,
        overlap=(Overlap.QUEUE, Overlap.SKIP)[choose(2)],
    )


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ends: an index into `ENDS` and the kind of its results."""

    how: int
    size: int


def end(attempt: tuple[str, str, int], spec: StepSpec, ending: Ending, at: float, mark: str) -> AttemptFinished:
    """Return the end of an attempt (run, key, number); `mark` makes its results unique to this execution."""
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
    """Return a text, sometimes a value that conditions and mapped steps can use, or a large one."""
    kind = size % SIZES
    match kind:
        case 6 | 14:
            digest = text.encode().hex()[:64].ljust(64, "0")
            items = 3 if kind == 14 else None
            return Stored(ArtifactRef(sha256=digest, size=1, media_type="", format=text, items=items))
        case 7:
            return Inline([text, BIG])
        case 8 | 9:
            return Inline([f"{text}:{number}" for number in range(3 * kind - 22)])
        case 10 | 11 | 12:
            return Inline(kind - 10)
        case 13:
            return Inline({"a": 2, "b": [text]})
        case 15:
            return values.Items((Inline(text), Inline(1)))
        case _:
            return Inline(text)
