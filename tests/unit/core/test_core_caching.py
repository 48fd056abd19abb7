"""Nearest earlier calls, what is remembered of them, and the words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock_core import cachekey, caching
from penstock_core.cachekey import Parts
from penstock_core.caching import Trace
from penstock_core.facts import CacheReport
from penstock_core.values import Inline
from penstock_testkit import strategies

PARTS = st.dictionaries(st.sampled_from(["code", "salt", "input a", "input b"]), st.sampled_from("xyz"))
TRACES = st.lists(
    st.builds(Trace, run_id=st.just("r"), key=st.just("k"), stored_at=st.floats(0, 1e9), parts=PARTS), max_size=30
)
CALLS = st.builds(
    Parts,
    code=st.sampled_from("cd"),
    environment=st.sampled_from("ef"),
    entrypoint=st.just("m:f"),
    inputs=st.dictionaries(st.sampled_from("ab"), strategies.value, max_size=2),
    salt=st.sampled_from(["", "s"]),
)


@given(PARTS, TRACES)
def test_the_nearest_differs_in_fewest_parts(parts: dict[str, str], traces: list[Trace]) -> None:
    found = caching.nearest(parts, traces)
    if found is None:
        assert not traces
        return
    trace, differs = found
    assert differs == caching.differing(parts, trace.parts)
    assert all((parts.get(name) == trace.parts.get(name)) != (name in differs) for name in {*parts, *trace.parts})
    for other in traces:
        count = len(caching.differing(parts, other.parts))
        assert count > len(differs) or (count == len(differs) and other.stored_at <= trace.stored_at)


@given(TRACES)
def test_what_is_remembered_is_bounded_and_has_each_combination_once(traces: list[Trace]) -> None:
    kept: list[Trace] = []
    for trace in traces:
        kept = caching.remember(kept, trace)
        assert kept[0] == trace
    assert len(kept) <= caching.RECENT
    assert len({tuple(sorted(trace.parts.items())) for trace in kept}) == len(kept)


@given(CALLS, CALLS)
def test_keys_are_equal_exactly_when_all_parts_are(one: Parts, other: Parts) -> None:
    keys = cachekey.key(one), cachekey.key(other)
    if None in keys:
        assert cachekey.unknown(one) or cachekey.unknown(other)
        return
    assert (keys[0] == keys[1]) == (cachekey.digests(one) == cachekey.digests(other))
    assert all(len(digest) == cachekey.PART for digest in cachekey.digests(one).values())


@given(strategies.value)
def test_only_values_known_by_reference_have_no_key(value: object) -> None:
    parts = Parts(code="c", environment="e", entrypoint="m:f", inputs={"x": value})  # type: ignore[dict-item]
    assert (cachekey.key(parts) is None) == (cachekey.unknown(parts) == ["x"])


def test_no_code_no_key() -> None:
    assert cachekey.key(Parts(code="", environment="e", entrypoint="m:f", inputs={"x": Inline(1)})) is None


def test_the_environment_holds_the_variables_of_the_step() -> None:
    assert cachekey.environment("e", {}) == "e"
    assert cachekey.environment("e", {"A": "1", "B": "2"}) == cachekey.environment("e", {"B": "2", "A": "1"})
    assert len({cachekey.environment("e", {"A": "1"}), cachekey.environment("e", {"A": "2"}), "e"}) == 3


def said(**fields: object) -> str:
    return caching.describe(CacheReport(**fields), now=10_000.0)  # type: ignore[arg-type]


def test_words() -> None:
    earlier = {"key": "k", "from_run": "run1", "from_step": "fit", "stored_at": 2000.0}
    assert said(**earlier, hit=True) == (
        "the result of step 'fit' of run run1, stored 2 h ago, counts: code, environment, salt and inputs are the same"
    )
    assert said(**earlier, differs=("code", "input depth")) == (
        "ran, because the code and input 'depth' differ from the nearest earlier result, that of step 'fit' of run "
        "run1, stored 2 h ago"
    )
    assert said(**earlier, differs=("input a",)).startswith("ran, because input 'a' differs from the nearest")
    assert said(key="k") == (
        "ran: no earlier result of this step with the same code, environment, salt and inputs is kept"
    )
    assert said(note="why") == "ran, and its result is not kept: why"
    assert said(key="k", note="the run asked for it") == "ran: the run asked for it"
    assert said(**earlier, note="the earlier result is too old") == (
        "ran: the earlier result is too old (that of step 'fit' of run run1, stored 2 h ago)"
    )
