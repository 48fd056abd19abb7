"""Source bundles are unpacked within bounds: registered by anyone, they cannot fill the disk of an executor."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock_core import source_bundles
from penstock_executor.sources import WorkplaceError, _unpack


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            member.size = member.size or len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def file(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def linked(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member, b""


def sparse() -> bytes:
    """A file of 1 TiB with nothing in it, as GNU tar writes it."""
    member = tarfile.TarInfo("sparse")
    member.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": str(2**40),
        "GNU.sparse.numblocks": "0",
    }
    return archive((member, b""))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "gzip": (lambda: gzip.compress(archive(file("a.py"))), "cannot be unpacked"),
    "bzip2": (lambda: bz2.compress(archive(file("a.py"))), "cannot be unpacked"),
    "xz": (lambda: lzma.compress(archive(file("a.py"))), "cannot be unpacked"),
    "a bomb": (lambda: gzip.compress(archive(file("zeros", bytes(200_000_000)))), "cannot be unpacked"),
    "too large": (lambda: archive(file("zeros", bytes(source_bundles.TOTAL_LIMIT + 1))), "bytes together"),
    "sparse": (sparse, "bytes together"),
    "too many files": (lambda: archive(*(file(str(n), b"") for n in range(50_001))), "more than 50000 files"),
    "too deep": (lambda: archive(file("a/" * 5000 + "b.py")), "more than 100 folders"),
    "outside": (lambda: archive(file("../b.py")), "outside"),
    "absolute link": (lambda: archive(linked("a", "/etc/passwd")), "absolute path"),
    "no archive": (lambda: b"import os", "cannot be unpacked"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_bundles_beyond_the_bounds_are_refused(tmp_path: Path, kind: str) -> None:
    make, says = REFUSED[kind]
    bundle = tmp_path / "bundle"
    bundle.write_bytes(make())
    with pytest.raises(WorkplaceError, match=says):
        _unpack(bundle, tmp_path / "sources" / "target")
    assert list((tmp_path / "sources").iterdir()) == [], "nothing of it is left"


def test_a_bundle_within_the_bounds_is_unpacked(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    bundle.write_bytes(archive(file("flow.py", b"import lib"), file("/".join(["d"] * 50) + "/lib.py"), file("ä\n.txt")))
    target = tmp_path / "sources" / "target"
    _unpack(bundle, target)
    assert (target / "flow.py").read_bytes() == b"import lib"
    assert len(list(target.rglob("*"))) == 53


def test_an_archive_of_many_headers_is_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    with bundle.open("wb") as sparse_file:
        sparse_file.truncate(source_bundles.ARCHIVE_LIMIT + 1)
    with pytest.raises(WorkplaceError, match=r"the source bundle has .* bytes, more than"):
        _unpack(bundle, tmp_path / "sources" / "target")
