"""Values of every kind round-trip through the artifact store; damage is detected."""

from __future__ import annotations

import datetime
import functools
import hashlib
import io
import json
import math
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sdk_sample_types import Color, Config, Pair, Plain, Special

from penstock import serialize
from penstock.errors import ArtifactDamagedError, ArtifactMissingError, UnloadableError
from penstock.serialize import UnsavableError, formats
from penstock.store import FolderStore
from penstock_core.artifacts.folders import UnsafeFolderError

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def there_and_back(value: Any, hint: Any, store: FolderStore, **more: Any) -> tuple[Any, str]:
    """The loaded value, and the format it was saved in (`inline`, …); references pass through JSON as in production."""
    saved = json.loads(json.dumps(serialize.save(value, hint, store), allow_nan=False))
    return serialize.load(saved, hint, store, **more), saved["artifact"]["format"] if "artifact" in saved else next(
        iter(saved)
    )


@quick
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.dictionaries(st.integers(), inner),
    )
)
def test_json_data_round_trip(store: FolderStore, value: Any) -> None:
    assert there_and_back(value, Any, store)[0] == value


@pytest.mark.parametrize(
    ("value", "hint", "form"),
    [
        (3, int, "value"),
        (2**100, int, "value"),
        ({1: "a", (2, 3): "b"}, dict[Any, str], "value"),
        ((1, "a"), tuple[int, str], "value"),
        ({1, 2}, set[int], "value"),
        (Config(3), Config, "value"),
        (Pair(1, ["a"]), Any, "value"),
        (Color.RED, Color, "value"),
        (datetime.datetime(2024, 1, 2), datetime.datetime, "value"),
        ([1, 2], Any, "value"),
        ("x" * 70_000, str, "text"),
        ("é" * 40_000, str, "text"),
        (["x" * 70_000], list[str], "json"),
        (tuple(range(30_000)), tuple[int, ...], "json"),
        (b"", bytes, "bytes"),
        (b"\x00\xff", bytes, "bytes"),
        (Plain(3), Plain, "pickle"),
        (Config(1, more={"x": Plain(1)}), Config, "pickle"),
        ({"a": [b"x"], "b": 1}, Any, "fields"),
        ([b"x", 1], Any, "items"),
        ([Plain(1), Plain(2)], list[Plain], "pickle"),
    ],
)
def test_each_kind_has_its_format_and_round_trips(store: FolderStore, value: Any, hint: Any, form: str) -> None:
    found, used = there_and_back(value, hint, store)
    assert used == form
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("large", [False, True])
def test_numbers_without_a_json_form_round_trip(store: FolderStore, large: bool) -> None:
    value = [math.nan, math.inf, -math.inf] + [0.5] * (30_000 if large else 0)
    found, used = there_and_back(value, list[float], store)
    assert used == ("jsonl" if large else "value")
    assert math.isnan(found[0])
    assert found[1:3] == [math.inf, -math.inf]
    assert len(found) == len(value)


def test_deeply_nested_data_is_not_inline(store: FolderStore) -> None:
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    assert there_and_back(deep, Any, store) == (deep, "json")


def test_only_pickles_are_marked_unsafe(store: FolderStore) -> None:
    pickled = serialize.save(Plain(1), Plain, store)["artifact"]
    assert pickled["unsafe"]
    assert pickled["media_type"] == "application/x-python-pickle"
    assert pickled["python_type"] == "sdk_sample_types:Plain"
    assert pickle.loads(store.path(pickled["sha256"]).read_bytes()) == Plain(1)  # noqa: S301
    assert not serialize.save(b"", bytes, store)["artifact"]["unsafe"]


# --------------------------------------------------------------------------------------------------- numpy, pandas


dtypes = st.sampled_from(["<f8", "<f4", "<i4", "|b1", "<c16", "<U3", "<M8[ns]", "|u1", ">f8"])


@quick
@given(st.data())
def test_arrays_round_trip(store: FolderStore, data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(dtypes))
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    raw = data.draw(st.binary(min_size=(n := int(np.prod(shape)) * dtype.itemsize), max_size=n))
    array = np.zeros(shape, dtype) if dtype.kind in "Ub" else np.frombuffer(raw, dtype).reshape(shape)
    if data.draw(st.booleans()):
        array = np.asfortranarray(array)
    found, used = there_and_back(array, np.ndarray, store)
    assert used == "npy"
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()


@pytest.mark.parametrize("array", [np.array([{1: 2}, None]), np.ma.masked_array([1, 2], [True, False])])
def test_arrays_that_npy_would_change_are_pickled(store: FolderStore, array: Any) -> None:
    found, used = there_and_back(array, np.ndarray, store)
    assert used == "pickle"
    assert type(found) is type(array)
    assert list(found) == list(array)


columns: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "text": st.text(max_size=5) | st.none(),
    "flag": st.booleans(),
    "when": st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)).map(
        lambda one: one.replace(fold=0)
    ),
    "mixed": st.integers() | st.text(max_size=3) | st.none() | st.floats(),
}


@quick
@given(st.data())
def test_tables_round_trip(store: FolderStore, data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 5))
    chosen = data.draw(st.lists(st.sampled_from(sorted(columns)), unique=True, max_size=4))
    frame = pd.DataFrame({name: data.draw(st.lists(columns[name], min_size=rows, max_size=rows)) for name in chosen})
    if chosen and data.draw(st.booleans()):
        frame = frame.set_index(chosen[0])
    found, used = there_and_back(frame, pd.DataFrame, store)
    assert used in ("parquet", "pickle")
    pd.testing.assert_frame_equal(found, frame, check_freq=False)


LABELS = pd.Index(["a", "b"], name="row")


@pytest.mark.parametrize(
    ("table", "form"),
    [
        (pd.DataFrame({"x": [1.5, math.nan]}, index=LABELS), "parquet"),
        (pd.DataFrame({"x": ["a", None]}), "parquet"),
        (pd.DataFrame({"x": pd.Categorical(["a", "b"], ["b", "a"], ordered=True)}), "parquet"),
        (pd.DataFrame({"x": pd.array([1, None], "Int64")}), "parquet"),
        (
            pd.DataFrame({"x": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "a"), (2, "b")], names=["n", None])),
            "parquet",
        ),
        (pd.DataFrame({"x": [1]}, index=pd.DatetimeIndex(["2024-01-01"], tz="Europe/Paris")), "parquet"),
        (pd.DataFrame(), None),
        (pd.DataFrame([[1, 2]]), "parquet"),
        (pd.DataFrame([[1, 2]], columns=[1, "a"]), "pickle"),
        (pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", 1), ("a", 2)])), None),
        (pd.DataFrame({"x": [[1, 2]]}), "pickle"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "pickle"),
        (pd.DataFrame({"x": [1, "a"]}), "pickle"),
        (pd.DataFrame({"x": [1 + 2j]}), "pickle"),
        (pd.Series([1, 2], name="n"), "parquet"),
        (pd.Series(["a", None], index=LABELS), "parquet"),
        (pd.Series([1.0], name=3), "pickle"),
    ],
)
def test_tables_round_trip_exactly(store: FolderStore, table: Any, form: str | None) -> None:
    found, used = there_and_back(table, type(table), store)
    assert form in (used, None)
    check = pd.testing.assert_frame_equal if isinstance(table, pd.DataFrame) else pd.testing.assert_series_equal
    check(found, table, check_freq=False)


def test_the_same_content_is_the_same_artifact(store: FolderStore) -> None:
    one = serialize.save(pd.DataFrame({"x": [1, 2]}), Any, store)
    two = serialize.save(pd.DataFrame({"x": [1, 2]}), Any, store)
    assert one == two


def test_a_list_of_tables_is_saved_item_by_item(store: FolderStore) -> None:
    tables = [pd.DataFrame({"x": [n]}) for n in range(3)]
    saved = serialize.save(tables, list[pd.DataFrame], store)
    assert [item["artifact"]["format"] for item in saved["items"]] == ["parquet"] * 3
    found = serialize.load(saved, list[pd.DataFrame], store)
    assert [table["x"].tolist() for table in found] == [[0], [1], [2]]


def test_figures_are_saved_as_images(store: FolderStore) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1), dpi=100)
    figure.subplots().plot([1, 2])
    saved = serialize.save(figure, Figure, store)
    assert saved["artifact"]["media_type"] == "image/png"
    assert store.path(saved["artifact"]["sha256"]).read_bytes().startswith(b"\x89PNG")
    assert serialize.load(saved, Figure, store).get_size_inches().tolist() == [2.0, 1.0]


def test_estimators_round_trip_and_predict(store: FolderStore) -> None:
    from sklearn.tree import DecisionTreeClassifier

    model = DecisionTreeClassifier(random_state=0).fit([[0], [1]], [0, 1])
    found, used = there_and_back(model, DecisionTreeClassifier, store)
    assert used == "pickle"
    assert found.predict([[0], [1]]).tolist() == [0, 1]


# --------------------------------------------------------------------------------------------------- files, folders


def test_a_file_keeps_its_name_and_is_read_only(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<p>hi")
    saved = serialize.save(tmp_path / "report.html", Path, store)
    assert saved["artifact"]["media_type"] == "text/html"
    found = [serialize.load(saved, Path, store, folder=tmp_path) for _ in range(2)]
    assert found[0] != found[1]
    assert found[0].name == "report.html"
    assert found[0].read_text() == "<p>hi"
    assert found[0].stat().st_mode & 0o777 == 0o444


def test_an_untrusted_file_name_cannot_escape_the_folder(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    saved = serialize.save(tmp_path / "f", Path, store)
    for evil in ("../../evil", "/etc/evil", "..", "", "a\0b"):
        saved["artifact"]["filename"] = evil
        assert serialize.load(saved, Path, store, folder=tmp_path).parent.parent == tmp_path


def make_folder(root: Path) -> Path:
    folder = root / "model"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "deep" / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("deep/run.sh")
    return folder


def test_a_folder_round_trips_and_its_archive_depends_only_on_content(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one, two = make_folder(tmp_path / "1"), make_folder(tmp_path / "2")
    os.utime(two / "a.txt", (1, 1))
    saved = serialize.save(one, Path, store)
    assert saved == serialize.save(two, Path, store)
    found = serialize.load(saved, Path, store, folder=tmp_path)
    assert found.name == "model"
    assert (found / "a.txt").read_text() == "a"
    assert (found / "deep" / "empty").is_dir()
    assert os.access(found / "deep" / "run.sh", os.X_OK)
    assert (found / "link").readlink() == Path("deep/run.sh")
    (one / "a.txt").write_text("b")
    assert serialize.save(one, Path, store) != saved


def test_a_folder_with_an_escaping_link_is_rejected(store: FolderStore, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "out").symlink_to("../../secret")
    with pytest.raises(UnsavableError, match="outside of the folder"):
        serialize.save(folder, Path, store)


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../evil", tarfile.REGTYPE, ""),
        ("/evil", tarfile.REGTYPE, ""),
        ("a/../../evil", tarfile.REGTYPE, ""),
        ("evil", tarfile.SYMTYPE, "../x"),
        ("a/evil", tarfile.SYMTYPE, "../../x"),
        ("evil", tarfile.SYMTYPE, "/etc/passwd"),
        ("evil", tarfile.LNKTYPE, "a"),
        ("evil", tarfile.FIFOTYPE, ""),
    ],
)
def test_an_escaping_archive_is_rejected_before_anything_is_written(
    store: FolderStore, tmp_path: Path, name: str, kind: bytes, link: str
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("good"))
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, link
        archive.addfile(member)
    sha256, size = store.put_bytes(buffer.getvalue())
    value = {"artifact": {"sha256": sha256, "size": size, "format": "folder", "filename": "x"}}
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(UnsafeFolderError):
        serialize.load(value, Path, store, folder=work)
    assert [path.name for path in work.rglob("*")] == [next(work.iterdir()).name]
    assert not (tmp_path / "evil").exists()


def test_a_missing_path_is_named(store: FolderStore) -> None:
    with pytest.raises(FileNotFoundError, match=r"output 'report' of step 'x' is the path 'nowhere\.html'"):
        serialize.save(Path("nowhere.html"), Path, store, where="output 'report' of step 'x'")


def test_paths_are_saved_in_lists_and_rejected_elsewhere(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    found, used = there_and_back([tmp_path / "f"], list[Path], store, folder=tmp_path)
    assert used == "items"
    assert found[0].read_text() == "x"
    with pytest.raises(UnsavableError, match="path inside a tuple"):
        serialize.save((tmp_path / "f",), Any, store)
    with pytest.raises(UnsavableError, match="path inside a Config"):
        serialize.save(Config(1, more={"x": tmp_path}), Any, store)


# ---------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("value", [b"some bytes", Plain(1), pd.DataFrame({"x": [1]}), Path(__file__)])
def test_a_flipped_byte_is_detected_and_named(store: FolderStore, tmp_path: Path, value: Any) -> None:
    saved = serialize.save(value, Any, store)
    sha256 = saved["artifact"]["sha256"]
    path = store.path(sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(ArtifactDamagedError, match=f"artifact {sha256} is damaged"):
        serialize.load(saved, Any, store, folder=tmp_path)
    assert not store.has(sha256) and (store.root / "damaged" / sha256).read_bytes() == data


@pytest.mark.parametrize("size", [1000, 5_000_000])
@pytest.mark.parametrize("known", [True, False])
def test_a_damaged_artifact_is_replaced_by_the_next_good_copy(
    store: FolderStore, tmp_path: Path, size: int, known: bool
) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    sha256, _ = store.put_file(file)
    path = store.path(sha256)
    path.chmod(0o644)
    path.write_bytes(bytes(size))
    assert store.put_file(file, known=known) == (sha256, size)
    assert store.read(sha256, size) == file.read_bytes()
    before = path.stat().st_ino
    assert store.put_file(file, known=known) == (sha256, size)
    assert path.stat().st_ino == before, "a good copy stays"


def test_a_missing_artifact_is_named(store: FolderStore, tmp_path: Path) -> None:
    for form in ("bytes", "file"):
        value = {"artifact": {"sha256": "0" * 64, "size": 1, "format": form}}
        with pytest.raises(ArtifactMissingError, match="0000 is not in the store"):
            serialize.load(value, Any, store, folder=tmp_path)


@pytest.mark.parametrize(
    ("value", "hint", "says"),
    [
        ("text", int, r"out is declared as int, but 'text' \(str\) is not int"),
        ([1, "a"], list[int], r"out is declared as list\[int\], but item 1: 'a' \(str\) is not int"),
        (None, pd.DataFrame, "out is declared as DataFrame, but None is not DataFrame"),
        (3, None, "declared as None"),
    ],
)
def test_a_wrong_type_is_rejected_on_save_and_load(store: FolderStore, value: Any, hint: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        serialize.save(value, hint, store, where="out")
    with pytest.raises(TypeError, match=says):
        serialize.load(serialize.save(value, Any, store), hint, store, where="out")


def test_unsavable_values_are_reported_with_a_hint(store: FolderStore) -> None:
    with pytest.raises(
        UnsavableError, match=r"the value, a generator, cannot be saved as pickle: .*serialize\.register"
    ):
        serialize.save((n for n in range(3)), Any, store)
    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"result": {"key": "a", "attempt": 1, "output": "result"}}, "reference to the run's log"),
        ({"something": 1}, "unknown form"),
        (
            {"artifact": {"sha256": hashlib.sha256(b"x").hexdigest(), "format": "new"}},
            "unregistered format 'new'",
        ),
        ({"artifact": {"sha256": hashlib.sha256(b"x").hexdigest(), "format": "npy"}}, "cannot be read from npy"),
    ],
)
def test_unloadable_values_are_reported_with_a_reason(store: FolderStore, value: Any, says: str) -> None:
    store.put_bytes(b"x")
    with pytest.raises(UnloadableError, match=says):
        serialize.load(value, Any, store)


def test_without_a_store_only_small_data_is_saved() -> None:
    assert serialize.save({"a": 1}, dict[str, int]) == {"value": {"a": 1}}
    with pytest.raises(UnsavableError, match="requires an artifact store"):
        serialize.save(b"x", bytes)


def test_a_custom_format(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))
    monkeypatch.setattr(formats, "_REGISTERED", {})
    serialize.register(
        Special,
        "special",
        save=lambda one, path: path.write_text(one.text),
        load=lambda path: Special(path.read_text()),
    )
    found, used = there_and_back([Special("a")], list[Special], store)
    assert used == "items"
    assert found[0].text == "a"
    assert not serialize.save(Special("a"), Special, store)["artifact"]["unsafe"]
    with pytest.raises(ValueError, match="one of the platform's own"):
        serialize.register(Special, "pickle", save=lambda *_: None, load=lambda _: Special(""))


def test_the_store_keeps_one_durable_copy_and_no_leftovers(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    sha256, size = store.put_file(tmp_path / "f")
    assert (sha256, size) == (hashlib.sha256(b"abc").hexdigest(), 3) == store.put_bytes(b"abc")
    assert store.path(sha256) == store.root / "sha256" / sha256[:2] / sha256
    assert store.has(sha256)
    files = {path for path in store.root.rglob("*") if path.is_file()}
    assert files == {store.path(sha256), store.root / "lock"}
    # A copy that lost its tail is replaced.
    store.path(sha256).unlink()
    store.path(sha256).write_bytes(b"a")
    store.put_bytes(b"abc")
    assert store.check(sha256).read_bytes() == b"abc"
    with pytest.raises(ValueError, match="not a SHA-256"):
        store.path("../../etc/passwd")


class TestProjectTypes:
    """Artifacts record whether loading them imports modules of the project, because cache keys depend on it."""

    @pytest.mark.parametrize(
        "value",
        [
            Plain(1),
            [Plain(1)] * 3,
            {1: Plain(1)},
            functools.partial(there_and_back, 1),
            np.array([Plain(1), None], dtype=object),
            [Config(depth) for depth in range(3000)],
            {"configs": [Config(depth) for depth in range(1500)]},
        ],
        ids=["object", "list", "dict", "function", "array", "long list", "large json"],
    )
    def test_objects_of_project_classes(self, store: FolderStore, value: Any) -> None:
        assert all(ref["project_types"] for ref in references(serialize.save(value, Any, store)))

    @pytest.mark.parametrize(
        "value",
        [
            np.array([1, None, datetime.date(2026, 1, 31)], dtype=object),
            pd.Index([1, 2]),
            ["$type", '{"$type": "m:Config"}'] * 3000,
            [{"depth": depth} for depth in range(30_000)],
            "x" * 100_000,
            np.zeros(3),
            pd.DataFrame({"a": [1]}),
            b"x",
        ],
        ids=["array", "index", "texts", "dicts", "text", "npy", "table", "bytes"],
    )
    def test_other_values(self, store: FolderStore, value: Any) -> None:
        found = references(serialize.save(value, Any, store))
        assert found and not any(ref["project_types"] for ref in found)


def references(saved: Any) -> list[Any]:
    """The artifacts of a saved value."""
    if "artifact" in saved:
        return [saved["artifact"]]
    inner = saved.get("items", []) or list(saved.get("fields", {}).values())
    return [ref for one in inner for ref in references(one)]
