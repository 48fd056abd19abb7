"""The scheduler's registrar: handling of registrations in attempt ends, including invalid ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from penstock_adapters.nats.bus import BusError
from penstock_contracts import subjects
from penstock_core.errors import UnavailableError
from penstock_core.facts import AttemptFinished, AttemptRequested, Outcome, Registration, RunRequested
from penstock_core.pipeline.ir import Node, Pipeline, StepSpec
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.ports import Recorded
from penstock_core.registry.decide import Decision
from penstock_core.registry.facts import ModelPromoted, ModelRegistered, PromotionRefused
from penstock_core.registry.state import Model, evolve
from penstock_core.run import machine
from penstock_core.run.effects import RegisterModels
from penstock_scheduler.model_registration import Registrar

PLACE = subjects.finished("r", "train", 1)


class FakeRegistry:
    """The log of one run, the models, and parked messages. `fails` is raised by changes of the model of that name."""

    def __init__(self, *wanted: Registration) -> None:
        artifact_of = AttemptFinished(
            run_id="r", key="train", attempt=1, outcome=Outcome.SUCCEEDED, metrics={"accuracy": 0.9, "loss": 0.1},
            params={"depth": 3}, models=wanted, finished_at=7.0,
        )  # fmt: skip
        self.log: dict[str, Recorded] = {PLACE: Recorded(5, 7.0, artifact_of)}
        self.models: dict[str, Model] = {}
        self.parked: list[str] = []
        self.reads = self.changes = 0
        self.fails: dict[str, Exception] = {}
        self.published = {2}
        self.registrar = Registrar(self, self, self, self.park)

    async def last(self, places: Sequence[str]) -> dict[str, Recorded]:
        return {place: self.log[place] for place in places if place in self.log}

    async def get(self, project: str, name: str) -> Model:
        self.reads += 1
        if name in self.fails:
            raise self.fails[name]
        return self.models.setdefault(name, Model(project, name))

    async def change(self, project: str, name: str, decide: Callable[[Model], Decision]) -> tuple[Decision, Model]:
        self.changes += 1
        model = self.models.setdefault(name, Model(project, name))
        decision = decide(model)
        for fact in decision.facts:
            evolve(model, fact.revision, fact)
        return decision, model

    async def is_experiment(self, project: str, pipeline: str, version: int) -> bool:
        return version not in self.published

    async def park(self, subject: str, body: bytes, error: str) -> None:
        self.parked.append(error)

    def state(self) -> machine.RunState:
        spec = StepSpec(name="train", entrypoint="m:train", code="c" * 64)
        pipeline = Pipeline(name="training", steps={"train": spec}, nodes=(Node(key="train", step="train"),))
        fields: dict[str, Any] = {"project": "p", "pipeline": "training", "version": 2}
        facts = [
            RunRequested(run_id="r", **fields),
            AttemptRequested(run_id="r", key="train", attempt=1, pool="default", entrypoint="m:train", **fields),
            self.log[PLACE].fact,
        ]
        return machine.fold("r", machine.Plan(pipeline), facts)

    async def register(self) -> None:
        await self.registrar.register(self.state(), [RegisterModels("train", 1)])


def wanted(n: int = 1, **more: Any) -> Registration:
    ref = ArtifactRef(sha256=f"{n:064x}", size=1, media_type="x", format="pickle")
    return Registration(**({"model": "churn", "artifact": ref, "output": "model-churn"} | more))


@pytest.mark.asyncio
async def test_a_version_combines_details_of_the_attempt_and_the_run() -> None:
    fakes = FakeRegistry(wanted(tags={"a": "b"}, description="d"))
    await fakes.register()
    fact = fakes.models["churn"].versions[1]
    assert (fact.run_id, fact.key, fact.attempt, fact.output) == ("r", "train", 1, "model-churn")
    assert (fact.pipeline, fact.pipeline_version, fact.code) == ("training", 2, "c" * 64)
    assert (fact.metrics, fact.params) == ({"accuracy": 0.9, "loss": 0.1}, {"depth": 3})
    assert (fact.tags, fact.description, fact.by, fact.at) == ({"a": "b"}, "d", "run:r/train", 7.0)
    assert fact.experiment is False


@pytest.mark.asyncio
async def test_a_version_is_an_experiment_if_that_of_the_pipeline_is_one_at_the_registration() -> None:
    fakes = FakeRegistry(wanted())
    fakes.published.clear()
    await fakes.register()
    assert fakes.models["churn"].versions[1].experiment is True
    fakes.published.add(2)
    await fakes.register()
    assert [fact.experiment for fact in fakes.models["churn"].versions.values()] == [True]


@pytest.mark.asyncio
async def test_registration_is_idempotent() -> None:
    fakes = FakeRegistry(
        wanted(alias="champion"), wanted(2, metrics={"accuracy": 0.1}, alias="champion", gate="accuracy > 1")
    )
    await fakes.register()
    assert (fakes.reads, fakes.changes) == (1, 2)
    for _ in range(2):
        await fakes.register()
    assert (fakes.reads, fakes.changes) == (3, 2)  # one read of each model, and no writes
    kinds = [type(fact) for fact in fakes.models["churn"].history]
    assert kinds == [ModelRegistered, ModelPromoted, ModelRegistered, PromotionRefused]
    assert fakes.models["churn"].versions[2].metrics == {"accuracy": 0.1}
    assert fakes.parked == []


@pytest.mark.asyncio
async def test_invalid_registrations_are_parked_and_the_rest_are_registered() -> None:
    fakes = FakeRegistry(wanted(), wanted(2, model="large"), wanted(3, model="other"))
    fakes.fails["large"] = BusError("a fact of 9000000 bytes is larger than the bus takes")
    await fakes.register()
    assert sorted(fakes.models) == ["churn", "other"]
    assert fakes.parked == ["model 'large' is not registered: a fact of 9000000 bytes is larger than the bus takes"]


@pytest.mark.asyncio
async def test_an_unavailable_model_log_is_retried_later() -> None:
    fakes = FakeRegistry(wanted())
    fakes.fails["churn"] = UnavailableError("away")
    with pytest.raises(UnavailableError):
        await fakes.register()
    fakes.fails.clear()
    state = fakes.state()
    kept = fakes.log.pop(PLACE)
    with pytest.raises(UnavailableError, match="cannot be read yet"):  # a replica of the stream that lags
        await fakes.registrar.register(state, [RegisterModels("train", 1)])
    fakes.log[PLACE] = kept
    await fakes.register()
    assert list(fakes.models["churn"].versions) == [1]
    assert fakes.parked == []
