"""One element of a list is read without the others, in every storage format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sdk_sample_types import Config, Pair, Plain

from penstock import serialize
from penstock.errors import ArtifactDamagedError, ArtifactMissingError, UnloadableError
from penstock.serialize import value_parts
from penstock.store import FolderStore

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.dictionaries(st.integers(0, 9), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
)


def part(value: Any, *path: int | str) -> dict[str, Any]:
    return {"of": value, "path": list(path)}


def read(value: Any, store: FolderStore, *path: int | str, hint: Any = Any) -> Any:
    return serialize.load(part(value, *path), hint, store)


def steps(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [key for key in value if isinstance(key, str | int) and not isinstance(key, bool)]
    return list(range(len(value))) if isinstance(value, list | tuple) else []


@quick
@given(plain, st.data())
def test_an_element_equals_that_of_the_whole_list(store: FolderStore, value: Any, data: st.DataObject) -> None:
    saved = json.loads(json.dumps(serialize.save(value, Any, store)))
    path: list[Any] = []
    while steps(value) and data.draw(st.booleans() | st.just(True)):
        path.append(data.draw(st.sampled_from(steps(value))))
        value = value[path[-1]]
    assert read(saved, store, *path) == value


def test_a_large_list_has_a_line_for_each_item(store: FolderStore) -> None:
    values = [{"n": n, "text": "é\n" * 20} for n in range(3000)]
    saved = serialize.save(values, list[dict[str, Any]], store)
    assert (saved["artifact"]["format"], saved["artifact"]["media_type"]) == ("jsonl", "application/jsonl")
    lines = store.path(saved["artifact"]["sha256"]).read_text().splitlines()
    assert [json.loads(line) for line in lines] == values
    assert serialize.load(saved, list[dict[str, Any]], store) == values
    for index in (
        0,
        1,
        value_parts.INDEX_INTERVAL - 1,
        value_parts.INDEX_INTERVAL,
        value_parts.INDEX_INTERVAL + 1,
        2999,
    ):
        assert read(saved, store, index) == values[index]
        assert read(saved, store, index, "n") == index


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (["x" * 70_000, 1], 2),
        ([1] * 70_000, 70_000),
        (tuple(range(20_000)), 20_000),
        ([Plain(1), Plain(2), Plain(3)], 3),
        ({"a": "x" * 70_000}, None),
        ({"$type": "tuple", "items": ["x" * 70_000]}, None),
        ("x" * 70_000, None),
        (Plain(1), None),
    ],
)
def test_lists_record_their_length(store: FolderStore, value: Any, items: int | None) -> None:
    assert serialize.save(value, Any, store)["artifact"]["items"] == items


def test_exactly_a_thousand_items_are_one_json_text(store: FolderStore) -> None:
    for count, form in ((1000, "json"), (1001, "jsonl")):
        saved = serialize.save(["x" * 100] * count, list[str], store)
        assert saved["artifact"]["format"] == form
        assert read(saved, store, count - 1, hint=str) == "x" * 100


@quick
@given(st.lists(st.text(max_size=8), min_size=1, max_size=700), st.booleans())
def test_every_line_of_the_index_is_found(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], ended: bool
) -> None:
    store = FolderStore(tmp_path_factory.mktemp("store"))
    raw = "\n".join(json.dumps(text) for text in texts) + ("\n" if ended else "")
    sha256, _ = store.put_bytes(raw.encode())
    assert [json.loads(value_parts.line(store, sha256, index)) for index in range(len(texts))] == texts


def test_elements_keep_their_types(store: FolderStore) -> None:
    many = [Config(n) for n in range(2000)]
    saved = serialize.save(many, list[Config], store)
    assert read(saved, store, 1500, hint=Config) == Config(1500)
    assert read({"value": [{"depth": 3}]}, store, 0, hint=Config) == Config(3)
    assert read(serialize.save(Pair(1, ["a"]), Pair, store), store, 1, 0) == "a"
    assert read(serialize.save((1, "b"), tuple[int, str], store), store, 1, hint=str) == "b"


def test_nested_items_and_fields(store: FolderStore) -> None:
    saved = serialize.save({"a": [b"x", [b"y"]], "b": 1}, Any, store)
    assert read(saved, store, "a", 1, 0) == b"y"
    assert serialize.load(part(part(saved, "a"), 0), bytes, store) == b"x"
    assert read(saved, store, "b") == 1
    assert serialize.load({"items": [part(saved, "b"), {"value": 2}]}, list[int], store) == [1, 2]


def test_an_item_of_a_pickled_list(store: FolderStore) -> None:
    saved = serialize.save([Plain(1), Plain(2)], list[Plain], store)
    assert read(saved, store, 1, hint=Plain) == Plain(2)


@pytest.mark.parametrize("path", [(3,), (-1,), ("a",), (0, 0)])
def test_a_missing_element_is_named(store: FolderStore, path: Any) -> None:
    many = [1.5] * 3
    for saved in (
        {"value": many},
        {"items": [{"value": one} for one in many]},
        serialize.save(["x" * 70_000, 1, 2], Any, store),
        {"artifact": {"format": "jsonl", "sha256": store.put_bytes(b"1\n2\n3\n")[0]}},
    ):
        with pytest.raises(UnloadableError, match=r"input 'n' of step 's' refers to a part that does not exist: .*\["):
            serialize.load(part(saved, *path), Any, store, where="input 'n' of step 's'")


def test_an_element_of_the_wrong_type_is_rejected(store: FolderStore) -> None:
    with pytest.raises(TypeError, match=r"declared as int, but 'a' \(str\) is not int"):
        read({"value": ["a"]}, store, 0, hint=int)


def test_a_file_that_changed_after_it_was_indexed_is_found_damaged(store: FolderStore) -> None:
    saved = serialize.save(list(range(100_000)), list[int], store)
    sha256 = saved["artifact"]["sha256"]
    assert read(saved, store, 99_999) == 99_999
    path = store.path(sha256)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"\n5\n", b"\n6\n"))
    with pytest.raises(ArtifactDamagedError):
        read(saved, store, 5)


def test_an_unusable_index_is_rebuilt(store: FolderStore) -> None:
    saved = serialize.save(list(range(20_000)), list[int], store)
    for broken in (b"", b"x", b"\0" * 48):
        assert read(saved, store, 7) == 7
        next(path for path in (store.root / "lines").rglob("*") if path.is_file()).write_bytes(broken)
    assert read(saved, store, 19_999) == 19_999


def test_a_read_only_store_can_be_read(store: FolderStore) -> None:
    saved = serialize.save(list(range(20_000)), list[int], store)
    (store.root / "lines").write_text("in the way")
    assert read(saved, store, 7) == 7


def test_a_missing_list_is_named(store: FolderStore) -> None:
    with pytest.raises(ArtifactMissingError):
        read({"artifact": {"format": "jsonl", "sha256": "0" * 64}}, store, 1)


def test_reading_one_element_reads_only_its_bytes(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = serialize.save(["x" * 50] * 50_000, list[str], store)
    assert read(saved, store, 40_000) == "x" * 50
    monkeypatch.setattr(Path, "read_bytes", lambda path: b"" if path.parent.parent.name == "sha256" else _read(path))
    monkeypatch.setattr(store, "check", lambda sha256: pytest.fail("the whole file was read"))
    monkeypatch.setattr(value_parts, "_indexed", lambda *_: pytest.fail("the whole file was read"))
    assert read(saved, store, 49_999) == "x" * 50


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read()


def test_joined_lists_are_read_as_one(store: FolderStore) -> None:
    lists: list[Any] = [[1, 2], [{"n": n, "text": "é\n" * 20} for n in range(3000)], [Plain(1), Plain(2)], []]
    saved = {"lists": [serialize.save(one, Any, store) for one in lists]}
    assert saved["lists"][1]["artifact"]["format"] == "jsonl"
    expected = [item for one in lists for item in one]
    assert serialize.load(saved, list[Any], store) == expected
    assert serialize.load(saved, tuple[Any, ...], store) == tuple(expected)
    for index in (0, 2, 3001, 3003):
        assert read(saved, store, index) == expected[index]
    assert read(saved, store, 5, "n") == 3
    with pytest.raises(UnloadableError, match="part that does not exist"):
        read(saved, store, 3004)


def test_a_part_that_is_no_list_is_an_error_of_the_input(store: FolderStore) -> None:
    saved = {"lists": [{"value": [1]}, serialize.save(Plain(1), Any, store)]}
    with pytest.raises(TypeError, match=r"input 'x': part 1 of it is a value of type Plain, not a list"):
        serialize.load(saved, list[Any], store, where="input 'x'")
