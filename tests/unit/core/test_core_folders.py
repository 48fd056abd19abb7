"""Manifests of folders: one canonical form per content, and no path that escapes the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core.artifacts import folders
from penstock_core.artifacts.folders import File, Manifest, UnsafeFolderError

A, B, C = (hashlib.sha256(text).hexdigest() for text in (b"a", b"b", b"c"))

NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"], blacklist_characters="/"), min_size=1, max_size=8)
PARTS = NAMES.filter(lambda name: name not in (".", ".."))
DIGESTS = st.binary(min_size=1, max_size=4).map(lambda data: hashlib.sha256(data).hexdigest())


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Files in folders `d…`, empty folders `e…`, links `l…`: no path below a file."""
    files = draw(
        st.dictionaries(
            st.lists(PARTS, max_size=3).map(lambda parts: "/".join([*(f"d{p}" for p in parts), "f"])),
            st.tuples(DIGESTS, st.integers(0, 1 << 40), st.booleans(), st.none() | DIGESTS, st.integers(0, 1 << 30)),
        )
    )
    return Manifest(
        files=tuple(
            File(path=path, sha256=sha256, size=size, executable=run, pack=pack, offset=offset if pack else 0)
            for path, (sha256, size, run, pack, offset) in sorted(files.items())
        ),
        folders=tuple(sorted(draw(st.sets(PARTS.map(lambda name: f"e{name}"), max_size=3)))),
        links=tuple(sorted(draw(st.dictionaries(PARTS.map(lambda name: f"l{name}"), PARTS, max_size=3)).items())),
    )


@given(manifests())
def test_manifests_round_trip(manifest: Manifest) -> None:
    data = folders.encode(manifest)
    assert folders.decode(data) == manifest
    assert folders.encode(folders.decode(data)) == data
    assert manifest.total == sum(file.size for file in manifest.files)
    assert set(manifest.objects()) == {file.pack or file.sha256 for file in manifest.files}


@given(manifests(), st.randoms())
def test_manifest_bytes_do_not_depend_on_order(manifest: Manifest, random: Any) -> None:
    files = list(manifest.files)
    # Packs are in the order of their files.
    if not any(file.pack for file in files):
        random.shuffle(files)
    other = Manifest(files=tuple(files), folders=manifest.folders[::-1], links=manifest.links[::-1])
    assert folders.encode(other) == folders.encode(manifest)


def cut(data: bytes) -> st.SearchStrategy[bytes]:
    return st.integers(0, len(data)).map(lambda end: data[:end])


@given(st.binary(max_size=200) | manifests().map(folders.encode).flatmap(cut))
def test_arbitrary_bytes_are_parsed_or_rejected(data: bytes) -> None:
    with contextlib.suppress(UnsafeFolderError):
        folders.decode(data)


def body(**changes: Any) -> bytes:
    return json.dumps({"version": 1, "files": [], **changes}).encode()


def file(**changes: Any) -> dict[str, Any]:
    return {"path": "x", "size": 1, "sha256": A, **changes}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        *[
            (body(files=[file(path=path)]), "outside of the folder")
            for path in ("../x", "/x", "a/../x", "a//x", "./x", "..", "a/")
        ],
        *[(body(files=[file(path=path)]), "control characters") for path in ("a\nb", "a\x00", "\x1b[2J", "\x7f")],
        (body(files=[file(path="")]), "is not a path"),
        (body(files=[file(path=1)]), "is not a path"),
        (body(files=[file(path="a\ud800")]), "UTF-8"),
        (body(folders=["../x"]), "outside of the folder"),
        (body(files=[file(), file()]), "twice"),
        (body(files=[file()], folders=["x"]), "twice"),
        (body(files=[file(), file(path="x/y")]), "below 'x', which is not a folder"),
        (body(files=[file(path="l/y")], links={"l": "d"}), "below 'l', which is not a folder"),
        *[
            (body(links={"a/l": to}), "outside of the folder")
            for to in ("../../x", "/etc/passwd", "", "../..", "b/../../../x", "c/..", 7)
        ],
        (body(files=[file(sha256="../../etc/passwd")]), "cannot be read"),
        (body(files=[file(pack=0)]), "cannot be read"),
        (body(files=[file(pack=-1)], packs=[A]), "non-negative number"),
        (body(files=[file(size=-1)]), "non-negative number"),
        (body(files=[file(size=True)]), "non-negative number"),
        (body(files=[file(size=1.5)]), "non-negative number"),
        (body(packs=["x"]), "cannot be read"),
        (body(version=2), "version 2"),
        (b"[]", "cannot be read"),
        (b"{", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_invalid_manifests_are_rejected(data: bytes, says: str) -> None:
    with pytest.raises(UnsafeFolderError, match=says):
        folders.decode(data)


@pytest.mark.parametrize(
    ("path", "target"), [("l", "x"), ("a/l", "../x"), ("a/b/l", "../../x/y"), ("l", "./x"), ("a/l", "..")]
)
def test_links_inside_are_kept(path: str, target: str) -> None:
    assert folders.decode(body(links={path: target})).links == ((path, target),)


def test_pack_boundaries_depend_on_content() -> None:
    ends = [folders.ends_pack(hashlib.sha256(str(n).encode()).hexdigest(), 1000) for n in range(6400)]
    assert 50 < sum(ends) < 150
    assert folders.ends_pack(B, folders.PACK_LIMIT)
    assert folders.ends_pack("0" * 64, 0)
    assert not folders.ends_pack(f"00000001{0:056x}", 0)
