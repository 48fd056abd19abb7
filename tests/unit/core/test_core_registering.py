"""When the end of an attempt asks for models to be registered, and when it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_core import effects
from penstock_core.errors import InvalidId
from penstock_core.facts import Outcome, Registration
from penstock_core.ir import Retry
from penstock_core.values import ArtifactRef, Inline
from penstock_testkit.told import CANCEL, FAILED, OK, RUN, Told, end, mapped, node, pipeline

ARTIFACT = ArtifactRef(sha256="a" * 64, size=1, media_type="x", format="pickle")
WANTED = (Registration(model="churn", artifact=ARTIFACT),)
FLOW = pipeline(node("train"), node("last", "train"), retry=Retry(retries=1))


def registers(told: Told) -> list[effects.Effect]:
    return [effect for effect in told.effects() if isinstance(effect, effects.Register)]


def test_a_good_end_registers_and_the_same_again_does_not() -> None:
    told = Told(FLOW, RUN)
    told.effects()
    good = replace(end("train"), models=WANTED)
    told(good)
    assert registers(told) == [effects.Register("train", 1)]
    told(good)
    assert registers(told) == []
    told(end("last"))
    assert registers(told) == []


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not OK])
def test_no_other_end_registers(outcome: Outcome) -> None:
    told = Told(FLOW, RUN)
    told(replace(end("train", outcome), models=WANTED))
    assert registers(told) == []


def test_of_several_attempts_the_one_that_counts_registers() -> None:
    told = Told(FLOW, RUN)
    told(replace(end("train", FAILED), models=WANTED))
    told(replace(end("train", attempt=2), models=WANTED))
    assert registers(told) == [effects.Register("train", 2)]
    told(replace(end("train", attempt=1), models=WANTED))
    assert registers(told) == []


def test_an_end_that_comes_before_its_request_registers_with_it() -> None:
    told = Told(FLOW, replace(end("train"), models=WANTED))
    assert registers(told) == []
    told(RUN)
    assert registers(told) == [effects.Register("train", 1)]


def test_an_end_after_a_cancel_registers_nothing() -> None:
    told = Told(FLOW, RUN, CANCEL)
    told(replace(end("train"), models=WANTED))
    assert registers(told) == []


def test_items_register_each_its_own() -> None:
    each = mapped(node("train", x=Inline([1, 2])), "x")
    told = Told(pipeline(each), RUN)
    told(replace(end("train[1]"), models=WANTED), end("train[0]"))
    assert registers(told) == [effects.Register("train[1]", 1)]
    assert told.over.outcome is OK


@pytest.mark.parametrize("fields", [{"model": "a.b"}, {"model": ""}, {"alias": "latest"}, {"alias": "3"}])
def test_a_wish_with_a_name_that_cannot_be_is_none(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidId):
        Registration(**({"model": "churn", "artifact": ARTIFACT} | fields))  # type: ignore[arg-type]
