"""Parameters may have any name that Python allows, also those of the SDK's own arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from sdk_user_modules import UserModules

from penstock import ask, run_pipeline, sleep, wait_for_event
from penstock.authoring import Pipeline, Step
from penstock.authoring.waits import RunOptions
from penstock.client.client import Client
from penstock.inputs import check_inputs, parse_inputs

_CALLS: list[Callable[..., Any]] = [
    Step.__call__, Step.partial, Step.map, Step.with_options, Pipeline.__call__, Pipeline.local, Pipeline.deploy,
    run_pipeline.__call__, ask, sleep, wait_for_event.__call__, Client.run,
]  # fmt: skip
_OWN = {name for call in _CALLS for name in inspect.signature(call).parameters}
NAMES = sorted(
    _OWN
    | set(RunOptions.__annotations__)
    | {"args", "kwargs", "cls", "mcs", "value", "type", "items", "fields", "artifact", "labels", "priority", "runs"}
    | {"answers", "result", "function", "step", "node", "output", "größe", "_private", "__dunder__", "match", "print"}
)

MODULE = """
from penstock import pipeline, run_pipeline, step

@step
def own({name}: int, more_: int = 1) -> int:
    return {name} * 10 + more_

@pipeline
def inner({name}: int) -> int:
    return own({name}={name}, more_=2)

@pipeline
def outer({name}: int) -> int:
    return inner({name}={name})

@pipeline
def mapped({name}: list[int]) -> list[int]:
    return own.partial(more_=3).map({name}={name})

@pipeline
def fixed({name}: int) -> list[int]:
    return own.partial({name}={name}).grid(more_=[1, 2])

@pipeline
def child({name}: int) -> int:
    return run_pipeline(inner, {name}={name})

@pipeline
def children({name}: list[int]) -> list[int]:
    return run_pipeline.partial(inner).map({name}={name})

@pipeline
def named({name}: int):
    run_pipeline.with_options(timeout="1h", name="k")("other", {name}={name})
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_may_have_any_name(name: str, user: UserModules) -> None:
    module = user.load(MODULE.format(name=name), head="")
    assert module.inner.local(**{name: 4}) == 42
    assert module.inner(**{name: 4}) == module.inner(4) == 42
    assert module.outer.local(**{name: 4}) == 42
    assert module.mapped.local(**{name: [1, 2]}) == [13, 23]
    assert module.fixed.local(**{name: 5}) == [51, 52]
    assert module.child.local(**{name: 4}) == 42
    assert module.children.local(**{name: [1, 2]}) == [12, 22]
    (node,) = module.named.compile().nodes
    assert (node.key, list(node.inputs)) == ("k", [name])
    assert check_inputs(module.inner, parse_inputs(module.inner, {name: "4"})) == {name: 4}


def test_an_option_of_run_pipeline_that_is_no_parameter_stays_an_option(user: UserModules) -> None:
    source = MODULE.format(name="version") + (
        "\n@pipeline\ndef both():\n    run_pipeline(inner, version=1, timeout='1h', name='x')\n"
        "    run_pipeline('inner', version=2, timeout='1h', name='y')\n"
    )
    module = user.load(source, head="")
    compiled = module.both.compile()
    first, second = compiled.nodes
    assert (first.key, list(first.inputs), second.key, list(second.inputs)) == ("x", ["version"], "y", [])
    specs = [compiled.steps[node.step] for node in compiled.nodes]
    assert [(one.target_version, one.timeout) for one in specs] == [(None, 3600.0), (2, 3600.0)]
