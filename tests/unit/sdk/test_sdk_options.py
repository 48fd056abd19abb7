"""Options of steps and pipelines in the IR, and copies of steps with other options."""

from __future__ import annotations

from typing import Any

import pytest
import sdk_sample_graphs as samples

from penstock import Cache, DefinitionError, Resources, pipeline, step
from penstock_core.pipeline import ir


def spec(**options: Any) -> ir.StepSpec:
    return samples.square.with_options(**options).spec()


def test_options_of_a_step() -> None:
    found = spec(retries=3, retry_delay="1s", backoff=2, max_retry_delay="1m", retry_jitter=0.5)
    assert found.retry == ir.Retry(retries=3, delay=1.0, backoff=2.0, max_delay=60.0, jitter=0.5)
    assert spec(resources=Resources(memory="1Gi", memory_growth=2)).resources == ir.Resources(
        memory=2**30, memory_growth=2.0
    )
    assert repr(Resources(memory=5, memory_growth=2)) == "Resources(cpu=None, memory=5, gpu=0, memory_growth=2.0)"
    assert (spec(cache=True).cache, spec(cache=True).cache_ttl) == (True, None)
    cached = spec(cache=Cache(ttl="7d", salt="v2"))
    assert (cached.cache, cached.cache_ttl, cached.cache_salt) == (True, 7 * 86_400.0, "v2")
    assert (spec(concurrency="gpu").concurrency, spec(concurrency="gpu").concurrency_max) == ("gpu", None)
    assert (spec(concurrency="gpu:2").concurrency, spec(concurrency="gpu:2").concurrency_max) == ("gpu", 2)


def test_a_copy_changes_only_the_given_options() -> None:
    @step(retries=2, timeout="1m", cache=True)
    def base(x: int) -> int:
        return x

    copy = base.with_options(timeout=None, cache=False, pool="gpu")
    assert copy.settings == {"cache": False, "pool": "gpu", "retry": ir.Retry(retries=2)}
    assert base.settings["timeout"] == 60.0
    assert copy(3) == 3
    assert repr(copy) == "<step 'base'>"
    again = copy.with_options(retries=0, name="other")
    assert (again.name, again.settings["retry"], again.settings["pool"]) == ("other", ir.Retry(retries=0), "gpu")
    assert again.with_options(pool="x").name == "other"


def test_copies_can_be_imported_by_other_processes_and_equal_ones_share_a_definition() -> None:
    @pipeline
    def p() -> None:
        samples.square(1)
        samples.square.with_options(retries=1)(2)
        samples.square.with_options(retries=1)(3)
        samples.square.with_options(trigger_rule="all_done")(4)
        samples.square.with_options(name="cube")(5)

    compiled = p.compile()
    assert [(node.key, node.step) for node in compiled.nodes] == [
        ("square", "square"),
        ("square-2", "square-2"),
        ("square-3", "square-2"),
        ("square-4", "square"),
        ("cube", "cube"),
    ]
    assert {spec.entrypoint for spec in compiled.steps.values()} == {"sdk_sample_graphs:square"}
    assert compiled.steps["square-2"].retry.retries == 1


def test_options_of_a_pipeline() -> None:
    @pipeline(name="nightly", deadline="2h", max_active_runs=1, overlap="buffer_one")
    def p() -> None:
        samples.square(1)

    compiled = p.compile()
    assert (compiled.name, compiled.deadline, compiled.max_active) == ("nightly", 7200.0, 1)
    assert compiled.overlap is ir.Overlap.BUFFER_ONE

    @pipeline
    def plain() -> None:
        samples.square(1)

    assert (plain.compile().deadline, plain.compile().max_active) == (None, None)


def test_invalid_options_name_the_line_of_the_copy() -> None:
    with pytest.raises(
        DefinitionError, match=r"with_options\(\) has no option 'retrys': did you mean 'retries'"
    ) as one:
        samples.square.with_options(retrys=3)  # type: ignore[call-arg]
    assert one.value.file == __file__
    with pytest.raises(DefinitionError, match="step name 'a b' is not valid"):
        samples.square.with_options(name="a b")


def test_nodes_are_from_1_to_64() -> None:
    assert spec(nodes=2).nodes == 2
    for wrong in (0, 65, True, "2"):
        with pytest.raises(DefinitionError, match="nodes must be a whole number from 1 to 64"):
            spec(nodes=wrong)
