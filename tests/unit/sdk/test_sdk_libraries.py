"""Objects of well-known libraries round-trip in widely readable, safe formats."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sdk_sample_types import Config

from penstock import Html, Markdown, codec, context, serialize
from penstock.errors import UnloadableError
from penstock.serialize import formats
from penstock.step_context.contexts import Context, use_context
from penstock.store import FolderStore


def back(value: Any, store: FolderStore, hint: Any = Any, **more: Any) -> tuple[Any, dict[str, Any]]:
    """The loaded value, and the reference to its artifact."""
    saved = json.loads(json.dumps(serialize.save(value, hint, store, **more)))
    return serialize.load(saved, hint, store, **more), saved.get("artifact", {"format": next(iter(saved))})


# ------------------------------------------------------------------------------------------------------------ tables

COLUMNS: dict[str, Any] = {
    "integers": [1, None],
    "small": pl.Series([1, 2], dtype=pl.Int8),
    "huge": pl.Series([1, 2**100], dtype=pl.Int128),
    "texts": ["a", None],
    "categories": pl.Series(["x", "y"], dtype=pl.Categorical),
    "enumeration": pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])),
    "lists": [[1], [2, 3]],
    "arrays": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
    "structs": [{"q": 1}, {"q": 2}],
    "durations": [datetime.timedelta(1)] * 2,
    "times": [datetime.time(1)] * 2,
    "zoned": pl.Series([datetime.datetime(2024, 1, 1)] * 2).dt.replace_time_zone("Europe/Paris"),
    "decimals": pl.Series(["1.5", "2.5"]).cast(pl.Decimal(10, 2)),
    "bytes": [b"x", b"\x00"],
    "nothing": [None, None],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_polars_columns_round_trip(store: FolderStore, name: str) -> None:
    frame = pl.DataFrame({name: COLUMNS[name]})
    found, about = back(frame, store, pl.DataFrame)
    assert about["format"] == "parquet"
    assert found.schema == frame.schema
    assert found.equals(frame)
    series, _ = back(frame[name], store, pl.Series)
    assert series.equals(frame[name], check_names=True, check_dtypes=True)


def test_a_polars_table_without_columns_or_rows(store: FolderStore) -> None:
    for frame in (pl.DataFrame(), pl.DataFrame(schema={"a": pl.Int64})):
        assert back(frame, store, pl.DataFrame)[0].equals(frame)


def test_a_polars_table_of_objects_cannot_be_saved(store: FolderStore) -> None:
    with pytest.raises(serialize.UnsavableError, match="Object is not supported"):
        serialize.save(pl.DataFrame({"o": pl.Series([{1}, {2}], dtype=pl.Object)}), Any, store)


def test_arrow_tables_round_trip_with_schema_and_metadata(store: FolderStore) -> None:
    table = pa.table(
        {"a": pa.array([1, None], pa.int16()), "d": pa.array(["x", "y"]).dictionary_encode()}
    ).replace_schema_metadata({"mine": "kept"})
    found, about = back(table, store, pa.Table)
    assert about["format"] == "parquet"
    assert found.equals(table, check_metadata=True)
    empty, _ = back(pa.table({"a": pa.array([], pa.int8())}), store, pa.Table)
    assert not empty.schema.metadata


def test_an_arrow_table_that_parquet_cannot_hold_is_pickled(store: FolderStore) -> None:
    union = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    found, about = back(pa.table({"u": union}), store, pa.Table)
    assert about["format"] == "pickle"
    assert found["u"].to_pylist() == [1, "b"]


def test_a_parquet_file_from_elsewhere_is_a_pandas_table(store: FolderStore, tmp_path: Path) -> None:
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "x.parquet")
    sha256, size = store.put_file(tmp_path / "x.parquet")
    found = serialize.load({"artifact": {"sha256": sha256, "size": size, "format": "parquet"}}, pd.DataFrame, store)
    assert found["a"].tolist() == [1]


def test_tables_without_pyarrow_say_what_to_install(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.serialize import parquet_tables

    monkeypatch.setattr(parquet_tables.importlib.util, "find_spec", lambda name: None)
    table = pd.DataFrame({"a": [1]})
    assert serialize.save(table, pd.DataFrame, store)["artifact"]["format"] == "pickle"
    with pytest.raises(serialize.ForbiddenFormatError, match="pip install pyarrow"):
        serialize.save(table, pd.DataFrame, store, unsafe=False)


# ------------------------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_sparse_arrays_keep_their_layout(store: FolderStore, layout: str, kind: str) -> None:
    from scipy import sparse

    dense = np.array([[0, 1.5, 0, 0], [0, 0, 0, -2]])
    value = getattr(sparse, f"{layout}_{kind}")(dense)
    found, about = back(value, store, type(value))
    assert (about["format"], about["unsafe"]) == ("npz", False)
    assert type(found) is type(value)
    assert found.dtype == value.dtype
    assert np.array_equal(found.toarray(), dense)
    assert serialize.save(value, Any, store)["artifact"]["sha256"] == about["sha256"]


# ---------------------------------------------------------------------------------------------------- figures, images


def test_plotly_figures_round_trip(store: FolderStore) -> None:
    import plotly.graph_objects as go

    figure = go.Figure(go.Scatter(x=np.arange(3), y=[3.0, None, 4.0], name="é"), layout={"title": {"text": "t"}})
    found, about = back(figure, store, go.Figure)
    assert (about["format"], about["media_type"]) == ("plotly", "application/vnd.plotly.v1+json")
    assert found.layout.title.text == "t"
    assert (list(found.data[0].x), list(found.data[0].y), found.data[0].name) == ([0, 1, 2], [3.0, None, 4.0], "é")
    surface = go.Figure(go.Heatmap(z=np.arange(6.0).reshape(2, 3)))
    assert [list(row) for row in back(surface, store)[0].data[0].z] == [[0, 1, 2], [3, 4, 5]]


def test_log_figure_takes_plotly_figures() -> None:
    import plotly.graph_objects as go

    figure = go.Figure()
    with use_context(Context()) as _:
        context().log_figure("curve", figure)
        assert context().sink.artifacts["curve"] is figure  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="takes a matplotlib or plotly figure, not int"):
            context().log_figure("curve", 3)


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("1", "image"), ("L", "image"), ("LA", "image"), ("P", "image"), ("RGB", "image"), ("RGBA", "image"),
        ("I;16", "image"), ("I", "tiff"), ("F", "tiff"), ("CMYK", "tiff"), ("LAB", "tiff"), ("HSV", "pickle"),
    ],
)  # fmt: skip
def test_images_keep_mode_and_pixels(store: FolderStore, mode: str, form: str) -> None:
    from PIL import Image

    size = 8
    pixel = len(Image.new(mode, (size, 1)).tobytes())
    data = np.random.default_rng(0).integers(0, 256, pixel * 3, dtype=np.uint8).tobytes()
    image = Image.frombytes(mode, (size, 3), data)
    if mode == "P":
        image.putpalette(bytes(range(256)) * 3)
    found, about = back(image, store, Image.Image)
    assert about["format"] == form
    assert (found.mode, found.size, found.tobytes()) == (mode, (size, 3), image.tobytes())


def test_a_photograph_keeps_its_exif_data(store: FolderStore, tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        found, about = back(image, store, Image.Image)
        assert found.tobytes() == image.tobytes()
    assert about["media_type"] == "image/png"
    assert found.getexif()[0x010F] == "Maker"


# ----------------------------------------------------------------------------------------------------------- reports


@pytest.mark.parametrize(("cls", "form"), [(Markdown, "markdown"), (Html, "html")])
def test_reports_are_text_with_a_media_type(store: FolderStore, cls: type[str], form: str) -> None:
    found, about = back(cls("# é"), store, cls)
    assert (type(found), found) == (cls, "# é")
    assert (about["format"], about["media_type"]) == (form, f"text/{form}; charset=utf-8")
    assert store.path(about["sha256"]).read_text() == "# é"
    listed, saved = back([cls("a")], store, list[cls])  # type: ignore[valid-type]
    assert (type(listed[0]), saved["format"]) == (cls, "items")
    inner, saved = back(Config(1, more={"x": cls("b")}), store, Config)
    assert (type(inner.more["x"]), saved["format"]) == (cls, "value")
    assert type(codec.decode("plain text", cls)) is cls


def test_plain_text_is_not_a_report(store: FolderStore) -> None:
    with pytest.raises(TypeError, match="is not Markdown"):
        serialize.save("# text", Markdown, store)


# ------------------------------------------------------------------------------------------------------------- torch


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed: saving modules is not tested here")


def test_torch_modules_compute_the_same_after_loading(store: FolderStore, torch: Any) -> None:
    from sdk_sample_torch_modules import Net, Tied

    nn = torch.nn
    cases = [
        (nn.Linear(3, 2), torch.randn(4, 3)),
        (nn.LSTM(2, 3, 2), torch.randn(5, 1, 2)),
        (Net(), torch.randn(4, 1, 8, 8)),
        (Tied(), torch.tensor([1, 2])),
        (nn.TransformerEncoderLayer(4, 2, batch_first=True), torch.randn(1, 3, 4)),
    ]
    for module, example in cases:
        module.eval()
        found, about = back(module, store, type(module))
        assert (about["format"], about["unsafe"]) == ("safetensors", False)
        first, second = (one(example) for one in (module, found))
        assert torch.equal(*(one[0] if isinstance(one, tuple) else one for one in (first, second)))
        assert list(found.state_dict()) == list(module.state_dict())
        assert [one.requires_grad for one in found.parameters()] == [one.requires_grad for one in module.parameters()]
        assert serialize.save(module, Any, store)["artifact"] == about
    tied = back(Tied(), store)[0]
    assert tied.embedding.weight is tied.head.weight


def test_state_dictionaries_and_tensors(store: FolderStore, torch: Any) -> None:
    from sdk_sample_torch_modules import Tied

    states = Tied().state_dict()
    found, about = back(states, store)
    assert (about["format"], type(found), list(found)) == ("safetensors", type(states), list(states))
    Tied().load_state_dict(found)
    tensor = torch.randn(3, 4).to(torch.bfloat16).T
    assert torch.equal(back(tensor, store)[0], tensor)
    assert back(tensor.to(torch.float32).to_sparse(), store)[1]["format"] == "pickle"


def test_a_module_with_code_in_it_is_pickled(store: FolderStore, torch: Any) -> None:
    module = torch.nn.Linear(1, 1)
    module.register_forward_hook(print)
    assert back(module, store)[1]["format"] == "pickle"
    with pytest.raises(serialize.ForbiddenFormatError, match="_forward_hooks"):
        serialize.save(module, Any, store, unsafe=False)


def test_a_file_cannot_name_a_class_that_is_not_a_module(store: FolderStore, tmp_path: Path, torch: Any) -> None:
    from safetensors.torch import save_file

    for name in ("subprocess:Popen", "torch.fx:GraphModule"):
        about = {"tree": {"module": 0}, "modules": [{"class": name, "state": {}}]}
        save_file({"a": torch.zeros(1)}, tmp_path / "m", {"penstock": json.dumps(about)})
        sha256, size = store.put_file(tmp_path / "m")
        with pytest.raises(UnloadableError, match="no class of modules"):
            serialize.load({"artifact": {"sha256": sha256, "size": size, "format": "safetensors"}}, Any, store)


def test_a_module_where_torch_is_missing_says_so(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.numpy import save_file

    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.delitem(__import__("sys").modules, "penstock.serialize.tensors", raising=False)
    save_file({"a": np.zeros(2)}, tmp_path / "m")
    sha256, size = store.put_file(tmp_path / "m")
    about = {"sha256": sha256, "size": size, "format": "safetensors", "python_type": "torch.nn.modules:Linear"}
    with pytest.raises(UnloadableError, match="was made with torch, and cannot be read"):
        serialize.load({"artifact": about}, Any, store)


# ----------------------------------------------------------------------------------------------------------- registry


def test_every_format_has_a_media_type_and_only_pickle_is_unsafe() -> None:
    assert all("/" in form.media_type for form in formats.FORMATS.values())
    assert [name for name, form in formats.FORMATS.items() if form.unsafe] == ["pickle"]


@pytest.mark.parametrize("name", ["parquet", "jsonl", "file", "folder"])
def test_built_in_format_names_are_reserved(name: str) -> None:
    with pytest.raises(ValueError, match="one of the platform's own"):
        serialize.register(Config, name, save=lambda *_: None, load=lambda _: Config(1))
