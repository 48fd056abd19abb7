"""Nearest earlier calls, their stored records, and the descriptions of differences."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from penstock_core.cache import cache_key, cached_results
from penstock_core.cache.cache_key import Parts
from penstock_core.cache.cached_results import CacheRecord
from penstock_core.facts import CacheReport
from penstock_core.pipeline.values import Inline
from penstock_testkit import strategies

PARTS = st.dictionaries(st.sampled_from(["code", "salt", "input a", "input b"]), st.sampled_from("xyz"))
TRACES = st.lists(
    st.builds(CacheRecord, run_id=st.just("r"), key=st.just("k"), stored_at=st.floats(0, 1e9), parts=PARTS), max_size=30
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
def test_the_nearest_call_differs_in_the_fewest_parts(parts: dict[str, str], traces: list[CacheRecord]) -> None:
    found = cached_results.nearest(parts, traces)
    if found is None:
        assert not traces
        return
    trace, differs = found
    assert differs == cached_results.differing(parts, trace.parts)
    assert all((parts.get(name) == trace.parts.get(name)) != (name in differs) for name in {*parts, *trace.parts})
    for other in traces:
        count = len(cached_results.differing(parts, other.parts))
        assert count > len(differs) or (count == len(differs) and other.stored_at <= trace.stored_at)


@given(TRACES)
def test_recorded_calls_are_bounded_and_unique(traces: list[CacheRecord]) -> None:
    kept: list[CacheRecord] = []
    for trace in traces:
        kept = cached_results.remember(kept, trace)
        assert kept[0] == trace
    assert len(kept) <= cached_results.RECENT
    assert len({tuple(sorted(trace.parts.items())) for trace in kept}) == len(kept)


@given(CALLS, CALLS)
def test_keys_are_equal_iff_all_parts_are_equal(one: Parts, other: Parts) -> None:
    keys = cache_key.key(one), cache_key.key(other)
    if None in keys:
        assert cache_key.unknown(one) or cache_key.unknown(other)
        return
    assert (keys[0] == keys[1]) == (cache_key.digests(one) == cache_key.digests(other))
    assert all(len(digest) == cache_key.PART for digest in cache_key.digests(one).values())


@given(strategies.value)
def test_only_inputs_known_by_reference_have_no_key(value: object) -> None:
    parts = Parts(code="c", environment="e", entrypoint="m:f", inputs={"x": value})  # type: ignore[dict-item]
    assert (cache_key.key(parts) is None) == (cache_key.unknown(parts) == ["x"])


def test_the_bundle_digest_is_in_the_key_when_required() -> None:
    parts = Parts(code="c", environment="e", entrypoint="m:f", inputs={"x": Inline(1)})
    with_bundle = replace(parts, bundle="b")
    assert len({cache_key.key(one) for one in (parts, with_bundle, replace(parts, bundle="b2"))}) == 3
    assert cache_key.digests(with_bundle).keys() - cache_key.digests(parts).keys() == {"bundle"}


def test_the_environment_includes_the_steps_variables() -> None:
    assert cache_key.environment("e", {}) == "e"
    assert cache_key.environment("e", {"A": "1", "B": "2"}) == cache_key.environment("e", {"B": "2", "A": "1"})
    assert len({cache_key.environment("e", {"A": "1"}), cache_key.environment("e", {"A": "2"}), "e"}) == 3


def said(**fields: object) -> str:
    return cached_results.describe(CacheReport(**fields), now=10_000.0)  # type: ignore[arg-type]


def test_differences_are_described() -> None:
    earlier = {"key": "k", "from_run": "run1", "from_step": "fit", "stored_at": 2000.0}
    assert said(**earlier, hit=True) == (
        "reuses the result of step 'fit' of run run1, stored 2 h ago: code, environment, salt and inputs are equal"
    )
    assert said(**earlier, differs=("code", "input depth")) == (
        "ran, because the code and input 'depth' differ from the nearest cached result, that of step 'fit' of run "
        "run1, stored 2 h ago"
    )
    assert said(**earlier, differs=("input a",)).startswith("ran, because input 'a' differs from the nearest")
    assert said(key="k") == ("ran: no result of this step is cached for this code, environment, salt and inputs")
    assert said(note="why") == "ran; its result is not cached: why"
    assert said(key="k", note="the run asked for it") == "ran: the run asked for it"
    assert said(**earlier, note="the cached result is too old") == (
        "ran: the cached result is too old (that of step 'fit' of run run1, stored 2 h ago)"
    )
