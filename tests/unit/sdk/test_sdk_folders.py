"""Folders as step results: deduplication, single files, old archives, and faults."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from penstock import serialize
from penstock.errors import ArtifactDamagedError, ArtifactTooLargeError
from penstock.serialize import UnsavableError, folders
from penstock.store import FolderStore
from penstock_core.artifacts.folders import PACK_LIMIT, SMALL


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def objects(store: FolderStore) -> set[str]:
    return {path.name for path in (store.root / "sha256").rglob("*") if path.is_file()}


def filled(folder: Path, small: int = 0, large: int = 0) -> Path:
    folder.mkdir()
    for n in range(small):
        (folder / f"small-{n:04}").write_bytes(f"{n} ".encode() * (n % 50))
    for n in range(large):
        (folder / f"weights-{n}").write_bytes(bytes([n]) * (SMALL + 1 + n))
    return folder


def save(folder: Path, store: FolderStore) -> dict[str, Any]:
    return serialize.save(folder, Path, store)["artifact"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_unchanged_files_are_stored_once(store: FolderStore, tmp_path: Path) -> None:
    folder = filled(tmp_path / "model", small=1000, large=3)
    first = save(folder, store)
    before = objects(store)
    assert len(before) < 60, "small files lie together"
    assert first["total"] == sum(map(len, contents(folder).values()))
    (folder / "weights-1").write_bytes(b"new" * SMALL)
    (folder / "small-0500").write_text("new")
    second = save(folder, store)
    new = objects(store) - before
    assert len(new) <= 4, "a large file, one pack or two, and the manifest"
    assert sum(store.path(sha256).stat().st_size for sha256 in new if sha256 != second["sha256"]) < 1_000_000
    found = serialize.load({"artifact": second}, Path, store, folder=tmp_path)
    assert contents(found) == contents(folder)


def test_adding_a_file_keeps_most_packs(store: FolderStore, tmp_path: Path) -> None:
    folder = filled(tmp_path / "data", small=2000)
    save(folder, store)
    before = objects(store)
    (folder / "small-0000-more").write_text("one more")
    save(folder, store)
    assert len(objects(store) - before) <= 3


def test_pack_sizes_are_bounded(store: FolderStore, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for n in range(200):
        (folder / f"{n:03}").write_bytes(os.urandom(SMALL))
    save(folder, store)
    assert max(store.path(sha256).stat().st_size for sha256 in objects(store)) <= PACK_LIMIT + SMALL


def test_reading_one_file_of_many(store: FolderStore, tmp_path: Path) -> None:
    folder = filled(tmp_path / "model", small=100, large=1)
    (folder / "small-0007").chmod(0o755)
    manifest = folders.read(save(folder, store)["sha256"], store)
    for name in ("small-0007", "small-0099", "weights-0"):
        file = folders.relative(manifest, f"./{name}")
        keep = {file.pack or file.sha256}
        for sha256 in objects(store) - keep:
            store.path(sha256).rename(tmp_path / sha256)  # nothing else is read
        folders.load_file(file, store, tmp_path / name)
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
        assert (tmp_path / name).stat().st_mode & 0o777 == (0o555 if name == "small-0007" else 0o444)
        for sha256 in tmp_path.glob("?" * 64):
            sha256.rename(store.path(sha256.name))
    with pytest.raises(FileNotFoundError, match=r"no file 'nothing'; its files: small-0000, .* and 81 more"):
        folders.relative(manifest, "nothing")


def test_a_folder_stored_as_an_archive_can_be_read(store: FolderStore, tmp_path: Path) -> None:
    folder = filled(tmp_path / "old", small=3, large=1)
    with store.temporary() as temporary:
        with tarfile.open(temporary, "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.add(path, path.name)
        sha256, size = store.adopt(temporary)
    value = {"sha256": sha256, "size": size, "format": "folder", "media_type": "application/x-tar", "filename": "old"}
    found = serialize.load({"artifact": value}, Path, store, folder=tmp_path)
    assert contents(found) == contents(folder)
    assert serialize.parts(value, store) == []


@pytest.mark.parametrize("which", ["pack", "large", "manifest"])
def test_a_flipped_byte_is_detected_and_named(store: FolderStore, tmp_path: Path, which: str) -> None:
    saved = save(filled(tmp_path / "model", small=20, large=1), store)
    manifest = folders.read(saved["sha256"], store)
    pack = next(file.pack for file in manifest.files if file.pack)
    large = next(file.sha256 for file in manifest.files if not file.pack)
    sha256 = {"pack": pack, "large": large, "manifest": saved["sha256"]}[which]
    path = store.path(sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(ArtifactDamagedError, match=sha256):
        serialize.load({"artifact": saved}, Path, store, folder=tmp_path)


def test_a_name_with_control_characters_is_rejected(store: FolderStore, tmp_path: Path) -> None:
    folder = filled(tmp_path / "model", small=1)
    (folder / "a\nb").write_text("x")
    with pytest.raises(UnsavableError, match=r"contains 'a\\nb', which has control characters in its name: rename it"):
        save(folder, store)
    (folder / "a\nb").unlink()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_text("x")
    with pytest.raises(UnsavableError, match="not valid UTF-8"):
        save(folder, store)


def test_a_link_through_a_link_is_stored_with_its_target(store: FolderStore, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("here")
    (folder / "link").symlink_to("a/b/../file")
    found = serialize.load({"artifact": save(folder, store)}, Path, store, folder=tmp_path)
    assert (found / "link").readlink() == Path("a/file")
    assert (found / "link").read_text() == "here"


def test_content_over_the_limit_is_rejected_before_copying(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store", limit=1000)
    (tmp_path / "file").write_bytes(bytes(1001))
    folder = tmp_path / "folder"
    folder.mkdir()
    for n in range(3):
        (folder / str(n)).write_bytes(bytes(400))
    for value in (tmp_path / "file", folder, bytes(1001), "x" * 70_000):
        with pytest.raises(
            ArtifactTooLargeError, match=r"output 'a' cannot be stored: .*of 1000 bytes.*ARTIFACT_LIMIT"
        ):
            serialize.save(value, Any, store, where="output 'a'")
    assert not [path for path in store.root.rglob("*") if path.is_file()]
    serialize.save(bytes(1000), bytes, store)


SCRIPT = """
import os, resource, signal, sys
from pathlib import Path
from penstock import serialize
from penstock.store import FolderStore
from penstock.errors import StoreFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = FolderStore(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
for value in (os.urandom(2_000_000), Path(sys.argv[2])):
    try:
        serialize.save(value, type(value), store, where="output 'a'")
    except StoreFullError as error:
        print(error)
print(sorted(path.name for path in store.root.rglob("*") if path.is_file()))
serialize.save(b"x" * 1000, bytes, store)
"""


def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3_000_000))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all("output 'a' cannot be stored: no room is left" in line and "free some" in line for line in lines[:2])
    assert lines[2] == "[]"


def test_new_folders_of_the_store_are_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderStore(tmp_path / "store")
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    sha256, _ = store.put_bytes(b"durable")
    folder = store.path(sha256).parent
    assert {str(path) for path in (folder, folder.parent, store.root, tmp_path)} <= set(synced)
    assert hashlib.sha256(b"durable").hexdigest() == sha256
