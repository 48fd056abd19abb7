"""Previews of artifacts by a sandboxed child process; formats that could run code are never loaded."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import polars as pl
import pytest

from penstock import Html, Markdown, serialize
from penstock.store import FolderStore
from penstock_adapters.files import FolderArtifacts
from penstock_artifacts.previews import preview_cache, sandbox
from penstock_artifacts.previews.preview_cache import Previews
from penstock_artifacts.previews.sandbox import Limits
from penstock_contracts.previews import MakePreview, Preview

LIMITS = Limits(seconds=20, patience=100.0)


class Maker:
    """Previews of values and bytes, by a real child process."""

    def __init__(self, root: Path, limits: Limits = LIMITS, **more: Any) -> None:
        self.store = FolderStore(root / "artifacts")
        self.folder = root / "previews"
        options = {"largest": 1 << 20, "room": 1 << 24} | more
        self.previews = Previews(FolderArtifacts(self.store.root), self.folder, limits, **options)

    async def value(self, value: Any, **more: Any) -> Preview:
        about = serialize.save(value, Any, self.store, **more)["artifact"]
        known = {name: about[name] for name in ("sha256", "format", "media_type", "filename", "unsafe")}
        return await self.previews.get(MakePreview(**known), about["size"])

    async def bytes(self, data: bytes, form: str = "", **more: Any) -> Preview:
        sha256, size = self.store.put_bytes(data)
        return await self.previews.get(MakePreview(sha256=sha256, format=form, **more), size)


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


# ------------------------------------------------------------------------------------------------------------- tables


async def test_a_table_shows_schema_and_first_rows(maker: Maker) -> None:
    frame = pd.DataFrame(
        {
            "n": range(100),
            "when": pd.date_range("2024", periods=100, tz="Europe/Paris"),
            "kind": pd.Categorical(["x", None] * 50),
            "long": ["y" * 1000] * 100,
        }
    )
    found = await maker.value(frame)
    assert (found.kind, found.facts["rows"], found.facts["columns"], found.truncated) == ("table", 100, 4, True)
    assert [column.name for column in found.columns] == ["n", "when", "kind", "long"]
    assert found.columns[1].type == "timestamp[us, tz=Europe/Paris]"
    assert len(found.rows) == 20
    assert found.rows[1][:3] == [1, "2024-01-01 23:00:00.000000Z", None]
    assert len(str(found.rows[0][3])) == 201


async def test_tables_of_other_libraries(maker: Maker) -> None:
    found = await maker.value(pl.DataFrame({"a": [[1, 2], None], "s": [{"x": 1}, {"x": 2}]}))
    assert found.rows == [["[1, 2]", "{'x': 1}"], [None, "{'x': 2}"]]
    assert not found.truncated
    assert (await maker.value(pl.DataFrame())).rows == []


async def test_arrays(maker: Maker) -> None:
    found = await maker.value(np.arange(600.0).reshape(3, 200))
    assert (found.facts["type"], found.facts["shape"], found.truncated) == ("float64", "3 x 200", True)
    assert (len(found.columns), found.rows[1][:2]) == (100, [200.0, 201.0])
    assert (await maker.value(np.array([1, 2], dtype="i1"))).rows == [[1], [2]]
    assert (await maker.value(np.zeros((2, 0, 3)))).rows == []
    records = await maker.value(np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]))
    assert ([column.name for column in records.columns], records.rows) == (["a", "b"], [[1, 2.5]])


async def test_sparse_arrays_and_weights_are_listed_by_their_headers(maker: Maker, tmp_path: Path) -> None:
    from safetensors.numpy import save_file
    from scipy import sparse

    found = await maker.value(sparse.csr_array(np.eye(4)))
    assert (found.facts["shape"], found.facts["stored_values"]) == ("4 x 4", 4)
    save_file({"layer.weight": np.zeros((2, 3), "f4")}, tmp_path / "m")
    found = await maker.bytes((tmp_path / "m").read_bytes(), "safetensors")
    assert found.facts == {"tensors": 1, "values": 6}
    assert found.rows == [["layer.weight", "F32", "2 x 3", 6]]


async def test_a_skops_estimator_shows_its_class(maker: Maker) -> None:
    from sklearn.linear_model import LogisticRegression

    found = await maker.value(LogisticRegression().fit([[0], [1]], [0, 1]), unsafe=False)
    assert found.facts["class"] == "sklearn.linear_model._logistic.LogisticRegression"


async def test_file_types_are_detected_by_name_and_magic_bytes(maker: Maker, tmp_path: Path) -> None:
    for name, text, kind, language in (
        ("a.csv", "x;y\n1;2\n", "table", ""),
        ("a.md", "# hi", "text", "markdown"),
        ("a.json", '{"a": 1}', "text", "json"),
        ("a.log", "one\ntwo", "text", "text"),
        ("a.svg", "<svg onload='alert(1)'/>", "text", "html"),
        ("noname", '[1, "é"]', "text", "json"),
    ):
        (tmp_path / name).write_text(text)
        found = await maker.value(tmp_path / name)
        assert (name, found.kind, found.language) == (name, kind, language)
    (tmp_path / "a.csv").write_text("x;y\n1;2\n3\n")
    found = await maker.value(tmp_path / "a.csv")
    assert ([column.name for column in found.columns], found.rows) == (["x", "y"], [["1", "2"], ["3", None]])


async def test_folders_and_archives_are_listed(maker: Maker, tmp_path: Path) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "w.bin").write_bytes(b"12345")
    found = await maker.value(tmp_path / "model")
    assert (found.facts, found.rows) == ({"files": 1, "bytes": 5}, [["deep/w.bin", 5]])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../evil", "x")
    assert (await maker.bytes(buffer.getvalue())).rows == [["../../evil", 1]]


# -------------------------------------------------------------------------------------------------- texts and images


async def test_html_is_shown_as_source(maker: Maker) -> None:
    found = await maker.value(Html("<script>alert(1)</script>"))
    assert (found.kind, found.language, found.text) == ("text", "html", "<script>alert(1)</script>")
    assert (await maker.value(Markdown("# hi"))).language == "markdown"


async def test_long_texts_and_json_are_truncated(maker: Maker) -> None:
    found = await maker.value("ä\n" * 50_000)
    assert (found.truncated, found.facts["lines"], len(found.text.encode()) <= 70_000) == (True, 50_000, True)
    found = await maker.value({"n": list(range(60_000)), "t": "x" * 5000})
    assert found.truncated
    assert found.facts == {"keys": 2}
    shown = json.loads(found.text)
    assert (shown["n"][-1], len(shown["n"])) == ("… 59950 more", 51)
    found = await maker.value([{"n": n, "text": "x" * 80} for n in range(5000)])
    assert (found.facts["items"], found.truncated, len(json.loads(found.text))) == (5000, True, 20)
    found = await maker.bytes(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "json")
    assert (found.kind, found.reason) == ("none", "it is nested too deeply")


async def test_images_and_figures_have_thumbnails(maker: Maker) -> None:
    from matplotlib.figure import Figure

    found = await maker.value(PIL.Image.new("RGB", (1000, 500), "red"))
    assert found.facts == {"width": 1000, "height": 500, "mode": "RGB", "format": "PNG"}
    assert found.picture is not None
    with PIL.Image.open(io.BytesIO(base64.b64decode(found.picture.base64))) as small:
        assert (small.size, small.getpixel((3, 3))) == ((320, 160), (255, 0, 0))
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    found = await maker.value(PIL.Image.fromarray(noise))
    assert found.picture is not None
    assert (found.picture.media_type, len(found.picture.base64) < 300_000) == ("image/jpeg", True)
    ramp = PIL.Image.fromarray(np.linspace(-5, 5, 100, dtype="f4").reshape(10, 10))
    assert (await maker.value(ramp)).kind == "image"
    figure = Figure()
    figure.subplots().plot([1, 2])
    assert (await maker.value(figure)).kind == "image"


# ------------------------------------------------------------------------------------------------- hostile and damaged


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


async def test_pickles_are_never_loaded(maker: Maker, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    data = pickle.dumps(Trap(mark))
    objects = io.BytesIO()
    np.save(objects, np.array([Trap(mark)], dtype=object), allow_pickle=True)
    packed = io.BytesIO()
    np.savez(packed, data=np.array([Trap(mark)], dtype=object), allow_pickle=True)
    assert (await maker.value(Trap(mark))).reason.startswith("it is a pickle: loading it could run code")
    assert (await maker.bytes(data)).reason.startswith("it is a pickle")
    assert (await maker.bytes(data, "mine", unsafe=True)).reason == "loading its format could run code"
    for form in ("parquet", "json", "jsonl", "npy", "npz", "image", "safetensors", "skops", "folder", "text", "plotly"):
        found = await maker.bytes(data, form)
        assert found.kind in ("none", "text"), form
    assert (await maker.bytes(objects.getvalue(), "npy")).reason.startswith("it holds Python objects")
    assert (await maker.bytes(packed.getvalue(), "npz")).kind == "table"
    assert not mark.exists()


async def test_unsafe_formats_are_not_opened(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "look", lambda *_: pytest.fail("a child was started"))
    assert (await maker.value(Trap(Path("x")))).kind == "none"


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes with many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def damaged(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff" * 40 + data[len(data) // 2 + 40 :]


async def test_damaged_files_and_bombs_give_a_reason(maker: Maker, tmp_path: Path) -> None:
    frame = io.BytesIO()
    pd.DataFrame({"x": np.random.default_rng(0).normal(size=5000)}).to_parquet(frame)
    good = frame.getvalue()
    cases = {
        "a huge image": (bomb(60_000, 60_000), "image", "60000 x 60000 pixels"),
        "an image that ends early": (bomb(100, 100), "image", "cannot be read"),
        "no image": (b"nothing of the kind", "png", "an image of an unsupported kind"),
        "no table": (b"PAR1 nothing PAR1", "parquet", "cannot be read"),
        "half a table": (good[: len(good) // 2], "parquet", "cannot be read"),
        "a damaged footer": (good[:-60] + b"\xff" * 52 + good[-8:], "parquet", "cannot be read|stopped|crashed|memory"),
        "an array that ends early": (b"\x93NUMPY\x01\x00" + _header("(1000000000,)"), "npy", "truncated"),
        "no array": (b"\x93NUMPY\x01\x00\x10\x00" + b"x" * 16, "npy", "cannot be read"),
        "no JSON": (b"{", "json", "cannot be read"),
        "no lines": (b"{\n", "jsonl", "cannot be read"),
        "no folder": (b"x" * 2000, "folder", "cannot be read"),
        "no weights": (b"\xff" * 100, "safetensors", "header is damaged"),
        "no archive": (b"PK\x03\x04 nothing", "", "cannot be read"),
        "a film": (b"\0\0\0\x18ftypmp42", "", None),
        "a document": (b"%PDF-1.7\0", "file", "there is no preview for application/pdf"),
    }  # fmt: skip
    for name, (data, form, reason) in cases.items():
        found = await maker.bytes(data, form, filename="a.pdf" if reason and "pdf" in reason else "")
        if reason is None:
            assert (name, found.kind, found.language) == (name, "text", "hex")
        else:
            assert found.kind == "none", (name, found)
            assert any(part in found.reason for part in reason.split("|")), (name, found.reason)
    found = await maker.bytes(damaged(good), "parquet")
    assert found.kind in ("table", "none")


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return struct.pack("<H", len(text)) + text


async def test_a_table_over_the_memory_limit_is_rejected(tmp_path: Path) -> None:
    """Ten megabytes of one value are a few bytes of Parquet; a hundred thousand such values are not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    maker = Maker(tmp_path, Limits(seconds=20, patience=100.0, memory=64 * 1024 * 1024))
    buffer = io.BytesIO()
    texts = pa.array(["x" * 10_000_000] * 30)
    pq.write_table(pa.table({"t": texts}), buffer, compression="zstd")
    assert len(buffer.getvalue()) < 5_000_000
    found = await maker.bytes(buffer.getvalue(), "parquet")
    assert found.kind == "none"
    assert "memory" in found.reason


async def test_a_slow_preview_is_stopped(tmp_path: Path) -> None:
    maker = Maker(tmp_path, Limits(seconds=1, patience=60.0))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(99_000):
            archive.addfile(tarfile.TarInfo(f"{number}"))
    found = await maker.bytes(buffer.getvalue(), "folder")
    assert (found.kind, "time" in found.reason or "takes more than 1 s" in found.reason) == ("none", True)
    maker = Maker(tmp_path, Limits(seconds=60, patience=0.01))
    found = await maker.bytes(b"some text", "text")
    assert found.reason == "making it took longer than 0.01 s"
    assert not list(maker.folder.glob("??/*.json"))[1:], "what depends on the machine's load is not kept"


def child(script: str, tmp_path: Path) -> dict[str, Any]:
    """Return the output of a script that runs inside the sandbox, after all privileges are dropped."""
    (tmp_path / "secret").write_text("the token")
    work = tmp_path / "empty"
    work.mkdir()
    program = f"""
        import json, os, socket, subprocess, sys
        from penstock_artifacts.previews import confinement
        done = confinement.begin({os.getpid()}, 10)
        done += confinement.confine(64 << 20)
        def refused(action):
            try:
                action()
            except OSError as error:
                return type(error).__name__
            except MemoryError:
                return "MemoryError"
            return "done"
        print(json.dumps({{"done": done, {script}}}))
    """
    found = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(program)], cwd=work, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def test_the_child_process_is_sandboxed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    found = child(
        f"'read': refused(lambda: open({str(secret)!r})), 'write': refused(lambda: open('x', 'w').write('x' * 9999)), "
        "'connect': refused(lambda: socket.socket()), "
        "'program': refused(lambda: subprocess.run(['true'])), 'signal': refused(lambda: os.kill(os.getppid(), 0)), "
        "'memory': refused(lambda: bytearray(256 << 20)), 'little': refused(lambda: bytearray(1 << 20))",
        tmp_path,
    )
    if set(found["done"]) != {"network", "files", "programs"}:
        pytest.skip(f"this machine confines {found['done']} only: name spaces or filters are not permitted")
    assert found["read"] == "FileNotFoundError"
    assert found["write"] != "done"
    assert found["connect"] == "PermissionError"
    assert found["program"] != "done"
    assert found["signal"] == "PermissionError"
    assert (found["memory"], found["little"]) == ("MemoryError", "done")


async def test_forged_child_output_is_rejected(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(*_: Any) -> tuple[dict[str, Any], bool]:
        return {"kind": "image", "picture": {"media_type": "text/html", "base64": "", "width": 1, "height": 1}}, True

    monkeypatch.setattr(preview_cache.sandbox, "look", look)
    assert (await maker.bytes(b"x", "image")).reason == "its reader gave an invalid reply"


# ---------------------------------------------------------------------------------------------------------------- once


async def test_previews_are_cached(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real = sandbox.look

    async def counted(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        return await real(*args)

    monkeypatch.setattr(preview_cache.sandbox, "look", counted)
    found = await asyncio.gather(*(maker.bytes(b"some text", "text") for _ in range(5)))
    assert (len({one.text for one in found}), calls) == (1, 1)
    again = Maker(maker.folder.parent)
    assert (await again.bytes(b"some text", "text")).text == "some text"
    assert calls == 1
    assert (await again.bytes(b"some text", "markdown")).language == "markdown"
    assert calls == 2


async def test_the_preview_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(*_: Any) -> tuple[dict[str, Any], bool]:
        return {"kind": "text", "text": "x" * 1000}, True

    monkeypatch.setattr(preview_cache.sandbox, "look", look)
    monkeypatch.setattr(preview_cache, "_SWEEP", 2)
    maker = Maker(tmp_path, room=5000)
    for number in range(20):
        await maker.bytes(str(number).encode(), "text")
    taken = sum(path.stat().st_size for path in maker.folder.glob("??/*.json"))
    assert 0 < taken < 8000


async def test_remote_objects_are_fetched_up_to_a_limit(tmp_path: Path) -> None:
    class Elsewhere:
        """A store that returns bytes, not paths."""

        def __init__(self, data: bytes) -> None:
            self.data = data

        async def open(self, sha256: str, start: int = 0, end: int | None = None) -> Any:
            del sha256, start, end
            for place in range(0, len(self.data), 7):
                yield self.data[place : place + 7]

    data = b"a text of another place"
    previews = Previews(Elsewhere(data), tmp_path / "previews", LIMITS, largest=100, room=1 << 20)  # type: ignore[arg-type]
    command = MakePreview(sha256=hashlib.sha256(data).hexdigest(), format="text")
    assert (await previews.get(command, len(data))).text == data.decode()
    other = MakePreview(sha256="0" * 64, format="text")
    reason = (await previews.get(other, 101)).reason
    assert reason == "it has 101 bytes, and no more than 100 are downloaded for a preview"
    assert [path.suffix for path in (tmp_path / "previews").rglob("*") if path.is_file()] == [".json"]
