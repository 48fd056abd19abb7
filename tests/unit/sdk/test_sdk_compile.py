"""Compiling pipelines to IR; steps stay plain functions."""

from __future__ import annotations

import dataclasses
import inspect
import json
import pickle
import time
from typing import Any, NamedTuple

import pytest
import sdk_sample_pipelines as samples

import penstock
from penstock import Pipeline, Resources, Step, pipeline, step
from penstock.authoring import options
from penstock_core.pipeline import ir, ir_check, values
from penstock_core.pipeline.values import BoundFields, BoundItems, Inline, Output, Param


def test_a_pipeline_compiles_to_its_ir() -> None:
    compiled = samples.training.compile()
    ir_check.check(compiled)
    assert compiled.name == "training"
    assert compiled.description == "Train a little."
    assert compiled.file == samples.__file__
    nodes = {node.key: node for node in compiled.nodes}
    assert list(nodes) == ["read", "split", "train", "train-2", "train-3", "best", "note", "note-2", "whole"]
    assert nodes["read"].inputs == {"source": Param("source")}
    assert nodes["split"].inputs == {"numbers": Output("read"), "size": Param("size")}
    assert nodes["train"].inputs == {"data": Output("split", "train"), "config": Param("config")}
    assert nodes["train-2"].inputs == {
        "data": Output("split", "test"),
        "config": Inline({"depth": 1, "names": ["a"]}),
        "kind": Inline("max"),
    }
    assert nodes["best"].inputs == {
        "scores": BoundItems((Output("train"), Output("train-2"), Inline(1.5))),
        "named": BoundFields({"again": Output("train-3")}),
    }
    assert nodes["whole"].inputs == {
        "parts": BoundFields({"train": Output("split", "train"), "test": Output("split", "test")})
    }
    assert nodes["note"].after == ("best",)
    assert nodes["whole"].after == ("note", "best")
    assert {nodes["train"].step, nodes["train-2"].step} == {"train"}
    lines = inspect.getsource(samples).splitlines()
    assert nodes["split"].file == samples.__file__
    assert "split(load(source)" in lines[(nodes["split"].line or 0) - 1]
    assert compiled.outputs == {"best": Output("best"), "parts": Output("split", "test")}
    json.dumps(dataclasses.asdict(compiled), allow_nan=False)


def test_parameters_become_ports() -> None:
    source, size, config = samples.training.compile().params
    schema = {"anyOf": [{"type": "string", "format": "path"}, {"type": "string"}]}
    assert source == ir.Port(name="source", type="Path | str", required=False, default="", schema=schema)
    assert size == ir.Port(name="size", type="float", required=False, default=0.5, schema={"type": "number"})
    assert (config.type, config.default) == ("Config", {"depth": 2, "names": ["a"]})
    assert config.schema == {
        "title": "Config",
        "type": "object",
        "properties": {"depth": {"type": "integer"}, "names": {"type": "array", "items": {"type": "string"}}},
        "required": [],
        "additionalProperties": False,
    }
    assert samples.single.compile().params[0].required


def test_every_option_is_in_the_spec() -> None:
    spec = samples.load.spec()
    assert spec.entrypoint == "sdk_sample_pipelines:load"
    assert spec.name == "read"
    assert spec.retry == ir.Retry(retries=2, delay=90.0, backoff=2.0, on=("OSError", "ValueError"))
    assert (spec.timeout, spec.queue_timeout) == (600.0, 0.5)
    assert spec.resources == ir.Resources(cpu=0.5, memory=3 * 2**29, gpu=1)
    assert (spec.pool, spec.priority, spec.cache, spec.concurrency) == ("gpu", 5, True, "database")
    assert (spec.environment, spec.secrets, spec.env) == ("py311", ("secret:key",), {"A": "b"})
    assert spec.file == samples.__file__
    assert samples.load.spec("other").entrypoint == "other:load"
    plain = samples.split.spec()
    assert (plain.retry, plain.timeout, plain.resources) == (ir.Retry(), None, ir.Resources())
    assert [port.name for port in plain.outputs] == ["train", "test"]
    assert plain.outputs[0].schema == {"type": "array", "items": {"type": "integer"}}
    assert [port.required for port in plain.inputs] == [True, False]


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("1.5h", 5400),
        ("2d", 172800),
        (30, 30),
        (1.5, 1.5),
        ("90 s", 90),
    ],
)
def test_durations_and_times(written: Any, seconds: float) -> None:
    assert options.duration(written, "timeout") == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("2Gi", 2**31),
        ("512Mi", 2**29),
        ("1.5G", 1_500_000_000),
        ("64k", 64_000),
        ("2GiB", 2**31),
        (1024, 1024),
        ("7", 7),
    ],
)
def test_sizes(written: Any, size: int) -> None:
    assert Resources(memory=written).memory == size


def test_other_returns() -> None:
    assert samples.nothing.compile().nodes == ()
    assert samples.nothing.compile().outputs == {}
    assert samples.outputs_of_one_step.compile().outputs == {
        "train": Output("split", "train"),
        "test": Output("split", "test"),
    }
    assert samples.named.compile().outputs == {
        "twice": Output("repeat"),
        "both": BoundItems((Output("repeat-2"), Output("repeat-3"))),
        "n": Param("n"),
    }


def test_nodes_are_in_topological_order() -> None:
    compiled = samples.backwards.compile()
    seen: set[str] = set()
    for node in compiled.nodes:
        assert set(ir.dependencies(node)) <= seen
        seen.add(node.key)
    assert [node.key for node in compiled.nodes] == ["note-3", "note-2", "note"]


def test_outside_a_pipeline_a_step_is_a_plain_function() -> None:
    assert samples.split([1, 2, 3, 4], size=0.25) == samples.Parts([1], [2, 3, 4])
    assert samples.split.__doc__ == "Divide in two."
    assert str(inspect.signature(samples.split)) == "(numbers: 'list[int]', size: 'float' = 0.5) -> 'Parts'"
    assert pickle.loads(pickle.dumps(samples.split)) is samples.split  # noqa: S301
    assert pickle.loads(pickle.dumps(samples.training)) is samples.training  # noqa: S301
    assert isinstance(samples.split, Step)
    assert isinstance(samples.training, Pipeline)
    assert samples.split.hints == {"numbers": list[int], "size": float}
    assert samples.split.outputs == {"train": list[int], "test": list[int]}


def test_step_results_are_split_and_checked() -> None:
    assert samples.split.split(samples.Parts([1], [2])) == {"train": [1], "test": [2]}
    assert samples.repeat.split([1]) == {"result": [1]}
    with pytest.raises(TypeError, match="step 'split' is declared to return Parts, but returned a value of type list"):
        samples.split.split([1])
    with pytest.raises(TypeError, match=r"output 'test' of step 'split' is declared as list\[int\], but item 0: 'a'"):
        samples.split.split(samples.Parts([1], ["a"]))  # type: ignore[list-item]


def test_steps_with_the_same_name_get_unique_keys() -> None:
    def make(text: str) -> Step[..., str]:
        @step(name="same")
        def inner() -> str:
            return text

        return inner

    one, two = make("one"), make("two")

    class Both(NamedTuple):
        a: str
        b: str

    @pipeline
    def both() -> Both:
        return Both(one(), two())

    assert both.local() == Both("one", "two")


def test_references_have_a_readable_repr() -> None:
    seen: list[Any] = []

    @pipeline
    def p(n: int) -> None:
        parts = samples.split(samples.repeat(n))
        seen.extend((n, samples.repeat(1), parts, parts.train))

    p.local(n=1)
    assert list(map(repr, seen)) == [
        "parameter 'n'",
        "the result of step 'repeat-2'",
        "the outputs (train, test) of step 'split'",
        "output 'train' of step 'split'",
    ]


def test_a_large_pipeline_compiles_quickly() -> None:
    @pipeline
    def chain(n: int) -> int:
        value: Any = n
        for _ in range(5_000):
            value = samples.later(value)
        return value

    start = time.perf_counter()
    compiled = chain.compile()
    assert len(compiled.nodes) == 5_000
    assert compiled.nodes[-1].inputs == {"n": Output("later-4999")}
    # Linear: about 20 microseconds a step. A quadratic compile would take minutes.
    assert time.perf_counter() - start < 10


def test_dir_lists_the_public_names() -> None:
    assert dir(penstock) == sorted(penstock.__all__)
    assert all(hasattr(penstock, name) for name in dir(penstock))


def test_the_package_exports_what_users_import() -> None:
    assert {"step", "pipeline", "context", "Resources", "DefinitionError", "InputError", "Client"} <= set(
        penstock.__all__
    )
    assert penstock.Client.__module__ == "penstock.client.client"
    assert penstock.serialize.save(3, int) == {"value": 3}
    with pytest.raises(AttributeError, match="no attribute 'stepp'"):
        penstock.stepp  # noqa: B018
    assert values.Inline(1) == Inline(1)
