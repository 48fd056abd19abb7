"""The run state machine alone: facts folded and decided a second, and memory of a mapped item.

    .venv/bin/python tests/bench/core.py [--steps N] [--items N] [--profile FILE]

Runs are driven to their ends in memory as a scheduler drives them: ends of attempts come in batches, each is folded,
what is decided is folded too. Facts are all that the log would hold. Times are processor time. The limit program makes
the same facts (end and request of each attempt) and keeps them in a dictionary, nothing else; `…_over_limit`
is the time of a fact by its time there.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import time
import tracemalloc
from collections.abc import Callable

from penstock_core.facts import AttemptFinished, AttemptRequested, Fact, Outcome, RunRequested
from penstock_core.pipeline.ir import MapSpec, Node, Pipeline, Port, StepSpec
from penstock_core.pipeline.values import BoundItems, Inline, Output
from penstock_core.run import machine

STEP = StepSpec(name="s", entrypoint="m:s", inputs=(Port(name="x", required=False),), outputs=(Port(name="result"),))
REQUEST = RunRequested(run_id="bench", project="p", pipeline="bench", version=1)
BATCH = 100
"""Ends of attempts that arrive together."""


def pipeline(*nodes: Node) -> Pipeline:
    """A pipeline of calls of one step."""
    return Pipeline(name="bench", steps={"s": STEP}, nodes=nodes)


def chain(length: int) -> Pipeline:
    """Steps one after another."""
    nodes = [Node(key="s-0", step="s")]
    nodes += [Node(key=f"s-{n}", step="s", inputs={"x": Output(f"s-{n - 1}")}) for n in range(1, length)]
    return pipeline(*nodes)


def wide(width: int) -> Pipeline:
    """One step, many that read it, one that reads them all."""
    middle = [Node(key=f"s-{n}", step="s", inputs={"x": Output("first")}) for n in range(width)]
    joined = BoundItems(tuple(Output(node.key) for node in middle))
    return pipeline(Node(key="first", step="s"), *middle, Node(key="last", step="s", inputs={"x": joined}))


def mapped_node(items: int) -> Pipeline:
    """A step for each element of a list, and one that reads all results."""
    each = Node(key="each", step="s", inputs={"x": Inline(list(range(items)))}, mapped=MapSpec(over=("x",)))
    return pipeline(each, Node(key="last", step="s", inputs={"x": Output("each")}))


def end(request: AttemptRequested) -> AttemptFinished:
    """The end of an attempt that succeeds."""
    return AttemptFinished(
        run_id="bench",
        key=request.key,
        attempt=request.attempt,
        outcome=Outcome.SUCCEEDED,
        outputs={"result": Inline(1)},
        started_at=1.0,
        finished_at=2.0,
    )


def drive(made: Pipeline) -> tuple[machine.RunState, int]:
    """Run a pipeline to its end; the state, and how many facts there were."""
    state = machine.RunState("bench", machine.Plan(made))
    arrived: list[Fact] = [REQUEST]
    facts = 0
    while arrived:
        batch, arrived = arrived[:BATCH], arrived[BATCH:]
        for fact in batch:
            state = machine.evolve(state, fact)
        facts += len(batch)
        while decided := machine.decide(state):
            facts += len(decided)
            for fact in decided:
                state = machine.evolve(state, fact)
                if isinstance(fact, AttemptRequested):
                    arrived.append(end(fact))
    assert state.finished is not None, "the run goes on"
    assert state.finished.outcome is Outcome.SUCCEEDED, state.finished.error
    return state, facts


def limit(steps: int) -> float:
    """Seconds a fact for no more than making the facts of `steps` attempts and keeping them."""
    kept: dict[tuple[str, int], AttemptFinished] = {}
    began = time.process_time()
    for number in range(steps):
        request = AttemptRequested(
            run_id="bench",
            key=f"s-{number}",
            attempt=1,
            pool="default",
            project="p",
            pipeline="bench",
            version=1,
            entrypoint="m:s",
            inputs={"x": Inline(1)},
        )
        kept[request.key, 1] = end(request)
    return (time.process_time() - began) / (2 * steps)


def measure(make: Callable[[int], Pipeline], size: int) -> float:
    """Seconds a fact."""
    made = make(size)
    gc.collect()
    began = time.process_time()
    _, facts = drive(made)
    return (time.process_time() - began) / facts


def memory(items: int) -> float:
    """Bytes that the state of a finished mapped step holds for each item."""
    made = mapped_node(items)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    state, _ = drive(made)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert state.finished is not None
    return (after - before) / items


def main() -> None:
    """Run the measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the chain and of the wide pipeline")
    parser.add_argument("--items", type=int, default=100_000, help="items of the mapped step")
    parser.add_argument("--profile", help="write a cProfile of the mapped step to this file")
    options = parser.parse_args()
    gc.set_threshold(20_000, 20, 50)  # as services have it
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(drive, mapped_node(options.items))
        profile.dump_stats(options.profile)
        return
    least = limit(options.steps)
    results: dict[str, float] = {}
    for name, make, size in (
        ("chain", chain, options.steps),
        ("wide", wide, options.steps),
        ("map", mapped_node, options.items),
    ):
        seconds = measure(make, size)
        results[f"core_{name}_facts_per_s"] = 1 / seconds
        results[f"core_{name}_over_limit"] = seconds / least
    results["core_map_bytes_per_item"] = memory(max(options.items // 5, 1))
    results["core_limit_facts_per_s"] = 1 / least
    width = max(map(len, results))
    for name, value in results.items():
        aim = ">= 50000" if name.endswith("facts_per_s") and "limit" not in name else ""
        print(f"{name:<{width}}  {value:>12.2f}  {aim}")
    print(json.dumps({name: round(value, 4) for name, value in results.items()}))


if __name__ == "__main__":
    main()
