"""Names of committed artifacts, and the precedence of checkpoints."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock_core import ids
from penstock_core.artifacts import committed
from penstock_core.facts import ArtifactCommitted
from penstock_core.pipeline import values
from penstock_core.pipeline.values import ArtifactRef, Element, Fields, Inline, Items, Stored

NAMES = st.one_of(st.text(max_size=200), st.sampled_from(["checkpoint", "loss", "a.b", "a_b", "-x", "", "é", ".."]))


@given(NAMES, NAMES)
def test_names_are_encoded_as_unique_subject_tokens(one: str, other: str) -> None:
    (first, given_one), (second, _) = committed.named(one), committed.named(other)
    ids.check_name(first)
    assert (given_one or first) == one or one == ""
    assert (first == second) == (one == other)
    assert first != committed.CHECKPOINT
    assert committed.named(one, checkpoint=True) == (committed.CHECKPOINT, "")


def test_valid_tokens_are_not_encoded() -> None:
    assert committed.named("loss-2") == ("loss-2", "")
    word, kept = committed.named("confusion matrix.png")
    assert word.startswith("confusion_matrix_png-") and kept == "confusion matrix.png"
    assert committed.named("checkpoint")[1] == "checkpoint"


def fact(attempt: int, at: float, name: str = "checkpoint") -> ArtifactCommitted:
    return ArtifactCommitted(run_id="r", key="fit", attempt=attempt, name=name, value=Inline(at), at=at)


def test_the_latest_previous_attempt_takes_precedence() -> None:
    facts = [fact(1, 9.0), fact(3, 4.0), fact(2, 5.0), fact(2, 6.0, "model"), fact(2, 7.0)]
    assert [(one.attempt, one.at) for one in committed.checkpoints(facts, 3)] == [
        (2, 7.0),
        (2, 5.0),
        (1, 9.0),
    ]
    assert committed.checkpoints(facts, 1) == []


def test_nested_artifacts_of_a_value_are_found() -> None:
    stored = [Stored(ArtifactRef(sha256=f"{n}" * 64, size=1, media_type="", format="bytes")) for n in range(3)]
    tree = Fields({"a": Items((stored[0], Inline(1))), "b": Element(stored[1], (0,)), "c": stored[2]})
    assert list(values.artifacts(tree)) == ["0" * 64, "1" * 64, "2" * 64]
