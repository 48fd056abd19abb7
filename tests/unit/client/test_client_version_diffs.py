"""What differs between two versions: files, values of pipelines, distributions."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from penstock.client import version_diffs
from penstock.client.version_diffs import Change
from penstock_core.source_bundles import BundleRefusedError


def bundle(**files: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return data.getvalue()


def test_the_regular_files_of_a_bundle() -> None:
    assert version_diffs.read_files(bundle(a=b"1", b=b"2")) == {"a": b"1", "b": b"2"}
    with pytest.raises(BundleRefusedError):
        version_diffs.read_files(bytes(10**9))


def test_a_unified_diff_of_changed_new_removed_and_binary_files() -> None:
    before = {"a.py": b"x\ny\n", "gone.py": b"g\n", "same.py": b"s\n", "data": b"\0\1"}
    after = {"a.py": b"x\nz\n", "new.py": b"n\n", "same.py": b"s\n", "data": b"\0\2"}
    assert version_diffs.diff_files(before, after) == (
        "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n"
        "Binary files a/data and b/data differ\n"
        "--- a/gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-g\n"
        "--- /dev/null\n+++ b/new.py\n@@ -0,0 +1 @@\n+n\n"
    )
    assert version_diffs.diff_files(before, before) == ""


def test_a_diff_is_bounded() -> None:
    many = {"a.py": "\n".join(map(str, range(50_000))).encode()}
    found = version_diffs.diff_files({}, many)
    assert found.count("\n") == 20_001 and found.endswith("only the first 20000 lines\n")


def test_values_of_pipelines_are_found_by_names_and_keys() -> None:
    def pipeline(retries: int, line: int, *keys: str) -> dict[str, Any]:
        return {
            "steps": {"train": {"retries": retries, "line": line, "code": str(line)}},
            "nodes": [{"key": key, "step": "train"} for key in keys],
        }

    before, after = pipeline(1, 10, "a", "b"), pipeline(2, 20, "b", "c")
    assert version_diffs.diff_pipelines(before, after) == [
        Change("steps.train.retries", "1", "2"),
        Change("nodes.a.key", "a", ""),
        Change("nodes.a.step", "train", ""),
        Change("nodes.c.key", "", "c"),
        Change("nodes.c.step", "", "train"),
    ]
    assert version_diffs.diff_pipelines(before, pipeline(1, 99, "a", "b")) == []


def test_distributions_of_environments() -> None:
    before = {"gpu": {"version": "3.11", "packages": {"numpy": "1", "gone": "1"}}}
    after = {"gpu": {"version": "3.12", "packages": {"numpy": "2"}}}
    assert version_diffs.diff_environments(before, after) == [
        Change("gpu.gone", "1", ""),
        Change("gpu.numpy", "1", "2"),
        Change("gpu.python", "3.11", "3.12"),
    ]
