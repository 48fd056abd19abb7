"""Pools and resources of steps, compared with what connected executors offer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstock_core import capacity
from penstock_core.capacity import Available, Capacity
from penstock_core.pipeline.ir import Kind, Pipeline, Resources, StepSpec

GIB = 2**30
SMALL = Capacity(executor="small", pool="default", slots=4, cpu=2.0, memory=8 * GIB, gpu=0)
LARGE = Capacity(executor="large", pool="gpu", slots=2, cpu=16.0, memory=64 * GIB, gpu=2)
POOLS = ("default", "gpu")


def pipeline(pool: str = "default", *, cpu: float | None = None, memory: int | None = None, gpu: int = 0) -> Pipeline:
    resources = Resources(cpu=cpu, memory=memory, gpu=gpu)
    spec = StepSpec(name="fit", entrypoint="m:fit", pool=pool, resources=resources, file="m.py", line=7)
    return Pipeline(name="p", steps={"fit": spec}, nodes=())


def problem(made: Pipeline, *executors: Capacity) -> str:
    found = capacity.problems(made, Available(pools=POOLS, executors=executors))
    return "; ".join(f"{path}: {message}" for path, message in found)


@pytest.mark.parametrize("needs", [{}, {"cpu": 2.0}, {"memory": 8 * GIB}, {"cpu": 0.5, "memory": GIB}])
def test_what_an_executor_has_is_accepted(needs: dict[str, Any]) -> None:
    assert problem(pipeline(**needs), SMALL, LARGE) == ""


@pytest.mark.parametrize(
    ("needs", "missing"),
    [
        ({"cpu": 2.5}, "2.5 cores"),
        ({"memory": 9 * GIB}, "9 GiB"),
        ({"gpu": 1}, "1 GPU"),
        ({"cpu": 1.0, "gpu": 3, "memory": GIB}, "1 cores, 1 GiB, 3 GPUs"),
    ],
)
def test_impossible_resources_are_refused_with_what_there_is(needs: dict[str, Any], missing: str) -> None:
    assert problem(pipeline(**needs), SMALL, LARGE) == (
        f"steps.fit.resources: no executor of pool 'default' has {missing} (m.py:7); "
        "it has small: 2 cores, 8 GiB, no GPUs"
    )


def test_one_executor_must_have_everything() -> None:
    many = replace(SMALL, executor="many", cpu=64.0, memory=GIB)
    assert problem(pipeline(cpu=8.0, memory=4 * GIB), SMALL, many).endswith(
        "it has small: 2 cores, 8 GiB, no GPUs; many: 64 cores, 1 GiB, no GPUs"
    )


def test_a_pool_without_connected_executors_waits() -> None:
    made = pipeline("gpu", gpu=8)
    assert problem(made, SMALL) == problem(made) == ""
    assert capacity.waiting(made, Available(pools=POOLS, executors=(SMALL,))) == [
        "no executor of pool 'gpu' is connected: step fit will wait for one"
    ]
    assert capacity.waiting(made, Available(pools=POOLS, executors=(LARGE,))) == []


def test_a_step_waits_for_the_only_large_executor_while_it_restarts() -> None:
    other = replace(SMALL, pool="gpu")
    available = Available(pools=POOLS, executors=(other,), restarting=(LARGE,))
    assert capacity.problems(pipeline("gpu", gpu=2), available) == []
    assert [path for path, _ in capacity.problems(pipeline("gpu", gpu=3), available)] == ["steps.fit.resources"]


def test_an_unknown_pool_is_refused_with_the_pools_and_their_sizes() -> None:
    more = replace(LARGE, executor="more")
    assert problem(pipeline("tpu"), SMALL, LARGE, more) == (
        "steps.fit.pool: no executor serves pool 'tpu' (m.py:7); "
        "the pools are: default (1 executor, 4 slots), gpu (2 executors, 4 slots)"
    )
    assert problem(pipeline("tpu"), LARGE).endswith("the pools are: default, gpu (1 executor, 2 slots)")


def test_a_cluster_may_have_everything() -> None:
    cluster = Capacity(executor="pods", pool="gpu", slots=100)
    assert problem(pipeline("gpu", cpu=1000.0, gpu=100), cluster, LARGE) == ""


def test_an_executor_of_all_pools_serves_each() -> None:
    everything = replace(SMALL, pool="*")
    assert problem(pipeline("gpu"), everything) == ""
    assert "no executor of pool 'gpu' has 1 GPU" in problem(pipeline("gpu", gpu=1), everything)


def test_steps_that_wait_without_a_process_need_no_executor() -> None:
    made = pipeline("tpu")
    asking = replace(made, steps={"fit": replace(made.steps["fit"], kind=Kind.ASK)})
    assert problem(asking, SMALL) == ""
    assert capacity.waiting(asking, Available(pools=POOLS)) == []


@pytest.mark.parametrize(
    ("image", "installable", "pods", "why"),
    [
        (True, True, (True, False), ""),
        (False, True, (True, False), ""),
        (True, True, (True,), ""),
        (True, False, (True,), ""),
        (False, True, (True,), "the environment has no image. Set PENSTOCK_IMAGES_REPOSITORY"),
        (True, False, (False,), "the environment is an image. Declare requirements"),
        (True, False, (), ""),
    ],
)
def test_environments_that_no_executor_can_use_are_refused(
    image: bool, installable: bool, pods: tuple[bool, ...], why: str
) -> None:
    spec = StepSpec(name="fit", entrypoint="m:fit", environment="e", file="m.py", line=7)
    made = Pipeline(name="p", steps={"fit": spec}, nodes=())
    executors = [replace(SMALL, executor=f"e{n}", pods=one) for n, one in enumerate(pods)]
    declared = {"e": capacity.DeclaredEnvironment(image=image, installable=installable)}
    found = capacity.problems(made, Available(pools=POOLS, executors=executors), declared)
    if not why:
        assert found == []
        return
    ((path, message),) = found
    assert path == "steps.fit.environment" and why in message
    assert message.startswith("environment 'e' cannot be used in pool 'default' (m.py:7): its steps run in ")
