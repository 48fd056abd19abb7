"""Libraries outside of the pipeline's folder are part of its source; files that hide other modules are reported."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

import pytest

from penstock import sources
from penstock.bundle import source
from penstock.errors import SourceError

PIPELINE = """
from penstock import pipeline, step
{imports}

@step
def number() -> int:
    return 1

@pipeline
def {name}() -> int:
    return number()
"""


def prepare(folder: Path, imports: str, name: str) -> sources.PreparedPipeline:
    """Prepare a pipeline in a file of this name, which must be new in this process."""
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(PIPELINE.format(imports=imports, name=name))
    return sources.prepare(folder / f"{name}.py")


@pytest.fixture(autouse=True)
def module_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of these tests hide installed modules: they leave the module path after the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the module path, named relative to the working folder as `PYTHONPATH=../lib` does."""
    found = tmp_path / "lib"
    (found / "toolbox_of_ours/data").mkdir(parents=True)
    (found / "toolbox_of_ours/__init__.py").write_text("from toolbox_of_ours import numbers\n")
    (found / "toolbox_of_ours/numbers.py").write_text("ONE = 1\n")
    (found / "toolbox_of_ours/data/table.csv").write_text("1\n")
    (found / "single_of_ours.py").write_text("TWO = 2\n")
    (found / "unused_of_ours.py").write_text("THREE = 3\n")
    (found / "spaced_of_ours/inner").mkdir(parents=True)
    (found / "spaced_of_ours/inner/__init__.py").write_text("FOUR = 4\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.syspath_prepend("../lib")
    return found


def test_imported_libraries_are_packed_whole(library: Path, tmp_path: Path) -> None:
    imports = "import single_of_ours, toolbox_of_ours.numbers\nfrom spaced_of_ours.inner import FOUR"
    found = prepare(tmp_path / "project", imports, "packs_libraries")
    assert found.source.files == (
        "packs_libraries.py",
        "single_of_ours.py",
        "spaced_of_ours/inner/__init__.py",
        "toolbox_of_ours/__init__.py",
        "toolbox_of_ours/data/table.csv",
        "toolbox_of_ours/numbers.py",
    )
    with tarfile.open(fileobj=io.BytesIO(found.source.data)) as archive:
        assert archive.extractfile("single_of_ours.py").read() == b"TWO = 2\n"  # type: ignore[union-attr]
    (library / "toolbox_of_ours/data/table.csv").write_text("2\n")
    assert sources.prepare(tmp_path / "project/packs_libraries.py").source.digest != found.source.digest


@pytest.mark.parametrize(
    ("file", "size", "says"),
    [
        ("fast.so", 1, "toolbox_of_ours/fast.so is compiled for one kind of machine"),
        ("weights.bin", source.FILE_LIMIT + 1, "toolbox_of_ours/weights.bin is larger than 1.0 MiB"),
        ("generated.py", source.TOTAL_LIMIT, "the source would have more than 20.0 MiB"),
    ],
)
def test_a_library_that_cannot_be_packed_is_reported(
    library: Path, tmp_path: Path, file: str, size: int, says: str
) -> None:
    (library / "toolbox_of_ours" / file).write_bytes(b"#" * size)
    found = prepare(tmp_path / "project", "import toolbox_of_ours", f"leaves_out_{file.partition('.')[0]}")
    assert len(found.source.files) == 1
    (warning,) = found.warnings
    assert warning.startswith(f"library 'toolbox_of_ours' in {library} is not part of the source, because {says}: ")
    assert "Install it into the environment" in warning


def test_files_that_hide_other_modules_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("pandas.py", "calendar.py", "test.py", "own_names.py"):
        (folder / name).write_text("")
    (folder / "yaml").mkdir()
    (folder / "yaml/__init__.py").write_text("")
    found = prepare(folder, "", "hides_modules")
    site = Path(sys.modules["pytest"].__file__ or "").parent.parent
    assert [warning.partition(" from steps")[0] for warning in found.warnings] == [
        f"{folder}/calendar.py hides the module 'calendar' of Python",
        f"{folder}/pandas.py hides the installed module 'pandas' ({site}/pandas/__init__.py)",
        f"{folder}/yaml/__init__.py hides the installed module 'yaml' ({site}/yaml/__init__.py)",
    ]


def test_an_import_that_fails_because_of_a_hidden_module_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "skops.py").write_text("")
    for name in [name for name in sys.modules if name.partition(".")[0] == "skops"]:
        monkeypatch.delitem(sys.modules, name)
    try:
        with pytest.raises(
            SourceError, match=r"has no attribute 'io' \(.*/skops\.py hides the installed module 'skops'"
        ):
            prepare(folder, "import skops\nskops.io", "uses_hidden_module")
    finally:
        sys.modules.pop("skops", None)
