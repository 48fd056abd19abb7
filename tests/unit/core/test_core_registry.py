"""Registered models: folded state, decisions, and concurrent changes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.errors import InvalidFactError, InvalidIdError
from penstock_core.pipeline.values import ArtifactRef
from penstock_core.registry import decide, references
from penstock_core.registry.decide import Actor, Decision, Origin, Promotion, VersionDetails
from penstock_core.registry.errors import ConflictError, GateError, GateRefusedError, NotFoundError, RegistryError
from penstock_core.registry.facts import (
    AliasRemoved,
    GateSet,
    ModelFact,
    ModelPromoted,
    ModelRegistered,
    PromotionRefused,
    VersionArchived,
    check_alias,
)
from penstock_core.registry.references import Reference
from penstock_core.registry.state import Model, evolve, fold, held

P, M = "default", "churn"
ADA = Actor("ada", 100.0)


def origin(n: int = 1, attempt: int = 1, run: str = "r") -> Origin:
    artifact = ArtifactRef(sha256=f"{n:064x}", size=n, media_type="application/octet-stream", format="pickle")
    return Origin(artifact=artifact, run_id=run, key="train", attempt=attempt, output="result", pipeline="training")


def apply(model: Model, decision: Decision) -> Model:
    for fact in decision.facts:
        evolve(model, fact.revision, fact)
    return model


def registered(*accuracies: float) -> Model:
    model = Model(P, M)
    for n, accuracy in enumerate(accuracies, 1):
        apply(model, decide.register(model, origin(n), VersionDetails(metrics={"accuracy": accuracy}), ADA))
    return model


def promoted(model: Model, version: int, alias: str = "champion", **more: object) -> Model:
    return apply(model, decide.promote(model, Promotion(alias=alias, version=version, **more), ADA))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ versions


def test_version_numbers_have_no_gaps_and_reregistration_is_idempotent() -> None:
    model = registered(0.1, 0.2)
    assert list(model.versions) == [1, 2]
    again = decide.register(model, origin(1), VersionDetails(metrics={"accuracy": 0.7}), ADA)
    assert (again.facts, again.version) == ((), 1)
    other = decide.register(model, origin(1, attempt=2), VersionDetails(), ADA)
    assert other.version == 3
    assert [fact.version for fact in other.facts if isinstance(fact, ModelRegistered)] == [3]


def test_the_latest_is_the_highest_number_that_is_not_archived() -> None:
    model = registered(0.1, 0.2, 0.3)
    apply(model, decide.archive(model, 3, "wrong data", ADA))
    assert model.latest is not None
    assert model.latest.version == 2
    assert decide.archive(model, 3, "again", ADA).facts == ()
    apply(model, decide.archive(model, 3, "it was right", ADA, archived=False))
    assert model.latest is not None
    assert model.latest.version == 3
    for number in (1, 2, 3):
        apply(model, decide.archive(model, number, "", ADA))
    with pytest.raises(NotFoundError, match="every version of model 'churn' is archived"):
        model.find(Reference(M))
    assert model.find(Reference(M, version=2)).version == 2


def tried(model: Model, n: int) -> Model:
    return apply(model, decide.register(model, replace(origin(n), experiment=True), VersionDetails(), ADA))


def test_the_latest_is_never_from_an_experiment() -> None:
    model = tried(registered(0.1, 0.2), 3)
    assert [fact.experiment for fact in model.versions.values()] == [False, False, True]
    assert model.experiments == [3]
    assert model.find(Reference(M)).version == 2
    assert model.find(Reference(M, version=3)).version == 3
    promoted(model, 3, "candidate")
    assert model.find(Reference(M, alias="candidate")).version == 3
    assert model.find(Reference(M)).version == 2
    apply(model, decide.register(model, origin(4), VersionDetails(), ADA))
    assert model.find(Reference(M)).version == 4


def test_a_version_of_an_experiment_stays_one_when_it_is_registered_again() -> None:
    model = tried(Model(P, M), 1)
    again = decide.register(model, origin(1), VersionDetails(), ADA)
    assert (again.facts, again.version) == ((), 1)
    assert model.latest is None


def test_a_model_of_experiments_only_has_no_latest_and_the_error_names_them() -> None:
    advice = "name one by number or alias, or train with a registered pipeline (penstock register)"
    model, said = Model(P, M), dict[int, str]()
    for n in (1, 2, 3):
        with pytest.raises(NotFoundError) as error:
            tried(model, n).find(Reference(M))
        said[n] = str(error.value)
    assert said == {
        1: f"model 'churn' has no published version (1 version comes from an experiment: churn:1): {advice}",
        2: f"model 'churn' has no published version (2 versions come from experiments: churn:1, churn:2): {advice}",
        3: f"model 'churn' has no published version (3 versions come from experiments: churn:1 … churn:3): {advice}",
    }
    apply(model, decide.register(model, origin(4), VersionDetails(), ADA))
    apply(model, decide.archive(model, 4, "", ADA))
    with pytest.raises(NotFoundError, match="no published version that is not archived"):
        model.find(Reference(M))
    for number in (1, 2, 3):
        apply(model, decide.archive(model, number, "", ADA))
    with pytest.raises(NotFoundError, match="every version of model 'churn' is archived"):
        model.find(Reference(M))


def test_not_found_errors_list_what_exists() -> None:
    with pytest.raises(NotFoundError, match="there is no model 'churn'"):
        Model(P, M).find(Reference(M))
    model = promoted(registered(0.1), 1)
    with pytest.raises(NotFoundError, match="has no version 7: it has versions 1 to 1"):
        model.find(Reference(M, version=7))
    with pytest.raises(NotFoundError, match="has no alias 'best': its aliases: champion"):
        model.find(Reference(M, alias="best"))
    with pytest.raises(NotFoundError):
        decide.promote(model, Promotion(alias="champion", version=2), ADA)
    with pytest.raises(NotFoundError):
        decide.remove_alias(model, "best", "", ADA)
    with pytest.raises(NotFoundError):
        decide.archive(model, 0, "", ADA)


def test_archived_versions_are_protected_too() -> None:
    model = registered(0.1, 0.2)
    apply(model, decide.archive(model, 1, "", ADA))
    assert held([model, Model(P, "other")]) == {f"{1:064x}", f"{2:064x}"}


# ------------------------------------------------------------------------------------------------------------- aliases


def test_an_alias_move_is_recorded_with_its_reason() -> None:
    model = promoted(registered(0.1, 0.2), 1, reason="first")
    model = promoted(model, 2, reason="better")
    assert model.aliases["champion"].version == 2
    moves = [fact for fact in model.history if isinstance(fact, ModelPromoted)]
    assert [(move.previous, move.version, move.reason, move.by) for move in moves] == [
        (None, 1, "first", "ada"),
        (1, 2, "better", "ada"),
    ]
    assert decide.promote(model, Promotion(alias="champion", version=2), ADA).facts == ()
    apply(model, decide.remove_alias(model, "champion", "none is good", ADA))
    assert model.aliases == {}
    assert isinstance(model.history[-1], AliasRemoved)


def test_a_move_with_an_outdated_expected_version_is_rejected() -> None:
    model = promoted(registered(0.1, 0.2, 0.3), 1)
    promotion = Promotion(alias="champion", version=2, replaces=1)
    promoted(model, 3)
    with pytest.raises(ConflictError, match="points at version 3, not at version 1"):
        decide.promote(model, promotion, ADA)
    with pytest.raises(ConflictError, match="points at version 3, not at version 0"):
        decide.promote(model, replace(promotion, replaces=0), ADA)
    assert decide.promote(model, Promotion(alias="new", version=2, replaces=0), ADA).facts


def test_an_archived_version_gets_no_alias_and_one_with_an_alias_is_not_archived() -> None:
    model = promoted(registered(0.1, 0.2), 1)
    with pytest.raises(ConflictError, match="version 1 of model 'churn' has an alias: champion"):
        decide.archive(model, 1, "", ADA)
    apply(model, decide.archive(model, 2, "", ADA))
    with pytest.raises(ConflictError, match="version 2 of model 'churn' is archived"):
        decide.promote(model, Promotion(alias="champion", version=2, force=True, reason="now"), ADA)


# --------------------------------------------------------------------------------------------------------------- gates


def gated(*accuracies: float, gate: str = "accuracy > champion.accuracy") -> Model:
    model = registered(*accuracies)
    return apply(model, decide.set_gate(model, "champion", gate, "", ADA))


def test_a_gate_guards_every_move_of_its_alias_and_of_no_other() -> None:
    model = promoted(gated(0.5, 0.4, 0.6), 1)
    with pytest.raises(GateRefusedError) as refused:
        decide.promote(model, Promotion(alias="champion", version=2), ADA)
    assert refused.value.clauses == ("accuracy > champion.accuracy: 0.4 > 0.5 is false",)
    promoted(model, 2, alias="candidate")
    promoted(model, 3)
    assert model.aliases["champion"].clauses == ("accuracy > champion.accuracy: 0.6 > 0.5 is true",)


def test_both_the_alias_gate_and_the_requested_gate_must_pass() -> None:
    model = promoted(gated(0.5, 0.6), 1)
    promotion = Promotion(alias="champion", version=2, gate="accuracy > 0.9")
    with pytest.raises(GateRefusedError) as refused:
        decide.promote(model, promotion, ADA)
    assert len(refused.value.clauses) == 2
    promoted(model, 2, gate="accuracy > 0.55")
    assert model.aliases["champion"].gate == "(accuracy > champion.accuracy) and (accuracy > 0.55)"


def test_force_bypasses_a_gate_with_a_recorded_reason() -> None:
    model = promoted(gated(0.5, 0.4, 0.6), 1)
    with pytest.raises(ConflictError, match="requires a reason"):
        decide.promote(model, Promotion(alias="champion", version=2, force=True), ADA)
    promoted(model, 2, force=True, reason="the old one is illegal")
    assert model.aliases["champion"].forced
    promoted(model, 3, force=True, reason="not needed")
    assert not model.aliases["champion"].forced  # it would have passed


def test_gates_can_be_set_before_the_model_exists_changed_and_deleted() -> None:
    model = apply(Model(P, M), decide.set_gate(Model(P, M), "champion", "accuracy > 0.9", "", ADA))
    assert not model.exists
    assert decide.set_gate(model, "champion", "accuracy > 0.9", "", ADA).facts == ()
    with pytest.raises(GateError):
        decide.set_gate(model, "champion", "accuracy >", "", ADA)
    apply(model, decide.set_gate(model, "champion", "", "", ADA))
    assert model.gates == {}
    assert decide.set_gate(model, "champion", "", "", ADA).facts == ()


# ------------------------------------------------------------------------------------------------- wishes of attempts


def promotion(alias: str = "champion", **more: object) -> Promotion:
    return Promotion(alias=alias, version=0, cause="r/train/1", **more)  # type: ignore[arg-type]


def test_a_version_and_its_alias_are_decided_together() -> None:
    model = Model(P, M)
    decision = decide.register(model, origin(), VersionDetails(), ADA, promotion())
    assert [type(fact) for fact in decision.facts] == [ModelRegistered, ModelPromoted]
    assert [fact.revision for fact in decision.facts] == [1, 2]
    apply(model, decision)
    assert decide.register(model, origin(), VersionDetails(), ADA, promotion()).facts == ()


def test_an_alias_requested_by_an_attempt_is_decided_once() -> None:
    model = Model(P, M)
    apply(model, decide.register(model, origin(1), VersionDetails(), ADA, promotion()))
    apply(
        model,
        decide.register(model, origin(2, run="r2"), VersionDetails(), ADA, replace(promotion(), cause="r2/train/1")),
    )
    assert model.aliases["champion"].version == 2
    # The first end is redelivered: the alias does not move back.
    assert decide.register(model, origin(1), VersionDetails(), ADA, promotion()).facts == ()


def test_a_rejection_is_recorded_and_not_reevaluated() -> None:
    model = promoted(gated(0.5), 1)
    about = VersionDetails(metrics={"accuracy": 0.4})
    decision = decide.register(model, origin(2), about, ADA, promotion())
    assert [type(fact) for fact in decision.facts] == [ModelRegistered, PromotionRefused]
    assert decision.refused is not None
    assert decision.refused.clauses == ("accuracy > champion.accuracy: 0.4 > 0.5 is false",)
    apply(model, decision)
    apply(model, decide.remove_alias(model, "champion", "", ADA))
    assert decide.register(model, origin(2), about, ADA, promotion()).facts == ()
    assert "champion" not in model.aliases


def test_an_unreadable_gate_or_an_archived_version_rejects_with_a_reason() -> None:
    model = Model(P, M)
    decision = decide.register(model, origin(), VersionDetails(), ADA, promotion(gate="accuracy >"))
    assert decision.refused is not None
    assert "of the gate)" in decision.refused.clauses[0]
    model = registered(0.1)
    apply(model, decide.archive(model, 1, "", ADA))
    decision = decide.register(model, origin(1), VersionDetails(), ADA, promotion())
    assert decision.refused is not None
    assert "is archived" in decision.refused.clauses[0]


# ---------------------------------------------------------------------------------------------------------------- laws

Request = Callable[[Model], Decision]

_versions, _aliases = st.integers(1, 6), st.sampled_from(["champion", "candidate"])
_gates = st.sampled_from(["", "accuracy > champion.accuracy", "accuracy >= 0.5", "not accuracy < candidate.accuracy"])


@st.composite
def requests(draw: st.DrawFn) -> Request:
    kind = draw(st.sampled_from(["register", "promote", "remove", "gate", "archive"]))
    alias, version, gate = draw(_aliases), draw(_versions), draw(_gates)
    match kind:
        case "register":
            made, about = origin(draw(st.integers(1, 8))), VersionDetails(metrics={"accuracy": draw(st.floats(0, 1))})
            asked = replace(promotion(alias, gate=gate), cause=made.attempt_id) if draw(st.booleans()) else None
            return lambda model: decide.register(model, made, about, ADA, asked)
        case "promote":
            forced, before = draw(st.booleans()), draw(st.none() | st.integers(0, 6))
            wanted = Promotion(alias=alias, version=version, gate=gate, force=forced, reason="why", replaces=before)
            return lambda model: decide.promote(model, wanted, ADA)
        case "remove":
            return lambda model: decide.remove_alias(model, alias, "why", ADA)
        case "gate":
            return lambda model: decide.set_gate(model, alias, gate, "why", ADA)
        case _:
            archived = draw(st.booleans())
            return lambda model: decide.archive(model, version, "why", ADA, archived=archived)


def decided(model: Model, wanted: Request) -> tuple[ModelFact, ...]:
    try:
        return wanted(model).facts
    except RegistryError:
        return ()


class Log:
    """The log of a model: each revision is written once, and a decision is written atomically."""

    def __init__(self) -> None:
        self.facts: list[ModelFact] = []

    def append(self, facts: tuple[ModelFact, ...]) -> bool:
        if not facts or facts[0].revision != len(self.facts) + 1:
            return False
        assert [fact.revision for fact in facts] == list(range(facts[0].revision, facts[0].revision + len(facts)))
        self.facts += facts
        return True

    def model(self, upto: int | None = None) -> Model:
        return fold(P, M, [(fact.revision, fact) for fact in self.facts[:upto]])


def check(model: Model, log: Log) -> None:
    """Check the invariants of a model."""
    assert model.history == log.facts  # every decision has an effect
    assert sorted(model.versions) == list(range(1, len(model.versions) + 1))
    assert len(model.by_source) == len(model.versions)
    assert all(move.version in model.versions for move in model.aliases.values())
    assert not {move.version for move in model.aliases.values()} & set(model.archived)
    for alias in {fact.alias for fact in log.facts if isinstance(fact, ModelPromoted | AliasRemoved)}:
        stands: int | None = None
        for fact in log.facts:
            if isinstance(fact, ModelPromoted | AliasRemoved) and fact.alias == alias:
                assert fact.previous == stands  # every move saw the previous one
                stands = fact.version if isinstance(fact, ModelPromoted) else None
        assert stands == (model.aliases[alias].version if alias in model.aliases else None)


@given(st.lists(requests(), max_size=25))
def test_sequential_decisions(wanted: list[Request]) -> None:
    log = Log()
    for one in wanted:
        facts = decided(log.model(), one)
        if facts:
            assert log.append(facts)
        # A repeated command changes nothing, unless it states the expected version of the alias, or is rejected now.
        assert not any(isinstance(fact, ModelRegistered) for fact in decided(log.model(), one))
    check(log.model(), log)


@given(st.lists(st.tuples(requests(), st.integers(0, 4)), max_size=25))
def test_decisions_on_a_stale_state_are_rejected_and_repeated(wanted: list[tuple[Request, int]]) -> None:
    """Replicas with a partial log: their decisions count only if nothing is missing."""
    log = Log()
    for one, behind in wanted:
        known = max(0, len(log.facts) - behind)
        facts = decided(log.model(known), one)
        if not facts:
            continue
        if known < len(log.facts):
            assert not log.append(facts)
            facts = decided(log.model(), one)
        if facts:
            assert log.append(facts)
    model = log.model()
    check(model, log)
    # A champion with a gate was better than the previous one, or was forced.
    for fact in log.facts:
        if isinstance(fact, ModelPromoted) and "champion.accuracy" in fact.gate and not fact.forced:
            before = log.model(fact.revision - 1).standing().get("champion")
            if before is not None:
                assert model.versions[fact.version].metrics["accuracy"] > before.metrics["accuracy"]


@given(st.lists(requests(), max_size=15), st.data())
def test_partial_and_duplicate_reads_fold_to_the_same_state(wanted: list[Request], data: st.DataObject) -> None:
    log = Log()
    for one in wanted:
        log.append(decided(log.model(), one))
    entries = [(fact.revision, fact) for fact in log.facts]
    model, seen = Model(P, M), 0
    while seen < len(entries):
        start = data.draw(st.integers(0, seen))
        end = data.draw(st.integers(seen + 1, len(entries)))
        for revision, fact in entries[start:end]:
            evolve(model, revision, fact)
        seen = end
    assert model == log.model()


@given(st.lists(requests(), max_size=15), st.data())
def test_an_unreadable_fact_only_takes_its_revision(wanted: list[Request], data: st.DataObject) -> None:
    log = Log()
    for one in wanted:
        log.append(decided(log.model(), one))
    holes = data.draw(st.sets(st.integers(1, max(1, len(log.facts)))))
    entries = [(fact.revision, None if fact.revision in holes else fact) for fact in log.facts]
    model = fold(P, M, entries)
    assert model.revision == len(log.facts)
    assert sorted(model.versions) == list(range(1, len(model.versions) + 1))
    assert all(move.version in model.versions for move in model.aliases.values())
    before = copy.deepcopy(model)
    for fact in log.facts:
        evolve(model, fact.revision, fact)  # too late
    assert model == before
    for one in wanted:  # and it continues
        facts = decided(model, one)
        assert all(fact.revision > model.revision for fact in facts)


def test_facts_of_other_models_change_nothing() -> None:
    model = registered(0.1)
    fact = GateSet(project=P, model="other", revision=2, alias="champion", gate="a > 1")
    evolve(model, 2, fact)
    assert model.gates == {}
    assert model.revision == 2


# ---------------------------------------------------------------------------------------------------------- references


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("churn", Reference("churn")),
        ("churn@champion", Reference("churn", alias="champion")),
        ("churn:3", Reference("churn", version=3)),
    ],
)
def test_references(text: str, means: Reference) -> None:
    assert references.parse(text) == means
    assert str(means) == text


@pytest.mark.parametrize(
    "text",
    ["", "@", "churn@", "churn:", "churn:0", "churn:x", "churn:-1", "churn:99999999", "churn:²", "../x", "a b", "a\n",
     "churn@3", "churn@latest", "churn@../x", "x" * 101, "churn@" + "x" * 101, "churn:1:2", "churn@a@b", "chürn"],
)  # fmt: skip
def test_invalid_references(text: str) -> None:
    with pytest.raises(InvalidIdError):
        references.parse(text)


@given(st.text(max_size=20))
def test_any_text_parses_as_a_reference_or_raises(text: str) -> None:
    with contextlib.suppress(InvalidIdError):
        assert str(references.parse(text)) == text or text.partition(":")[2].startswith("0")


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("value", "schema", "named"),
    [
        ("model:churn@champion", None, "churn@champion"),
        ("model:churn", {}, "churn"),
        ("model:churn", {"type": "object"}, "churn"),
        ("model:churn", {"anyOf": [{"type": "null"}, {"type": ["object", "null"]}]}, "churn"),
        ("model:churn", TEXT, None),
        ("model:churn", {"anyOf": [{"type": "null"}, TEXT]}, None),
        ("model:churn", {"type": ["string", "null"]}, None),
        ("model:churn", {"enum": ["model:churn", "other"]}, None),
        ("model:churn", {"const": "model:churn"}, None),
        ("churn", None, None),
        (3, None, None),
        ({"artifact": {"model": "churn"}}, TEXT, "churn"),
        ({"artifact": {"model": "model:churn:3"}}, None, "churn:3"),
        ({"artifact": {"model": "churn", "sha256": "a"}}, None, None),
        ({"artifact": {"model": "churn"}, "more": 1}, None, None),
        ({"artifact": {"model": 3}}, None, None),
        ({"model": "churn"}, None, None),
    ],
)
def test_inputs_that_name_a_model(value: object, schema: object, named: str | None) -> None:
    assert references.named(value, schema) == named


@pytest.mark.parametrize("alias", ["7", "latest", "", "a.b", "a@b"])
def test_invalid_alias_names(alias: str) -> None:
    with pytest.raises(InvalidIdError):
        check_alias(alias)
    with pytest.raises(InvalidIdError):
        GateSet(project=P, model=M, revision=1, alias=alias, gate="a > 1")


@pytest.mark.parametrize("revision", [0, -1, 1_000_001])
def test_revisions_out_of_range(revision: int) -> None:
    with pytest.raises(InvalidFactError):
        VersionArchived(project=P, model=M, revision=revision, version=1)
