"""Which ends of attempts register models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_core.errors import InvalidIdError
from penstock_core.facts import Outcome, Registration
from penstock_core.pipeline.ir import Retry
from penstock_core.pipeline.values import ArtifactRef, Inline
from penstock_core.run import effects
from penstock_testkit.run_driver import CANCEL, FAILED, OK, RUN, RunDriver, end, mapped_node, node, pipeline

ARTIFACT = ArtifactRef(sha256="a" * 64, size=1, media_type="x", format="pickle")
WANTED = (Registration(model="churn", artifact=ARTIFACT),)
FLOW = pipeline(node("train"), node("last", "train"), retry=Retry(retries=1))


def registers(driver: RunDriver) -> list[effects.Effect]:
    return [effect for effect in driver.effects() if isinstance(effect, effects.RegisterModels)]


def test_a_successful_end_registers_models_once() -> None:
    driver = RunDriver(FLOW, RUN)
    driver.effects()
    good = replace(end("train"), models=WANTED)
    driver(good)
    assert registers(driver) == [effects.RegisterModels("train", 1)]
    driver(good)
    assert registers(driver) == []
    driver(end("last"))
    assert registers(driver) == []


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not OK])
def test_unsuccessful_ends_register_nothing(outcome: Outcome) -> None:
    driver = RunDriver(FLOW, RUN)
    driver(replace(end("train", outcome), models=WANTED))
    assert registers(driver) == []


def test_only_the_deciding_attempt_registers() -> None:
    driver = RunDriver(FLOW, RUN)
    driver(replace(end("train", FAILED), models=WANTED))
    driver(replace(end("train", attempt=2), models=WANTED))
    assert registers(driver) == [effects.RegisterModels("train", 2)]
    driver(replace(end("train", attempt=1), models=WANTED))
    assert registers(driver) == []


def test_an_end_before_its_request_registers_with_the_request() -> None:
    driver = RunDriver(FLOW, replace(end("train"), models=WANTED))
    assert registers(driver) == []
    driver(RUN)
    assert registers(driver) == [effects.RegisterModels("train", 1)]


def test_an_end_after_a_cancel_registers_nothing() -> None:
    driver = RunDriver(FLOW, RUN, CANCEL)
    driver(replace(end("train"), models=WANTED))
    assert registers(driver) == []


def test_each_item_registers_its_own_models() -> None:
    each = mapped_node(node("train", x=Inline([1, 2])), "x")
    driver = RunDriver(pipeline(each), RUN)
    driver(replace(end("train[1]"), models=WANTED), end("train[0]"))
    assert registers(driver) == [effects.RegisterModels("train[1]", 1)]
    assert driver.finished.outcome is OK


@pytest.mark.parametrize("fields", [{"model": "a.b"}, {"model": ""}, {"alias": "latest"}, {"alias": "3"}])
def test_a_registration_with_an_invalid_name_is_ignored(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidIdError):
        Registration(**({"model": "churn", "artifact": ARTIFACT} | fields))  # type: ignore[arg-type]
