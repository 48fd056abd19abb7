"""Files that a pipeline's definition names: they are named relative to the project, or refused."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pytest

from penstock import sources
from penstock_core.errors import DefinitionError
from penstock_core.pipeline import ir
from penstock_core.pipeline.values import Inline

_CODE = """
from pathlib import Path
from penstock import pipeline, step
@step
def count(table: Path) -> int: return len(table.read_text())
@pipeline
def main(given: Path = Path({default!r})) -> int:
    count(given)
    return count({literal})
"""


def _prepare(folder: Path, default: str, literal: str) -> sources.PreparedPipeline:
    file = folder / f"p{uuid.uuid4().hex}.py"
    file.write_text(_CODE.format(default=default, literal=literal))
    return sources.prepare(file)


def _names(compiled: ir.Pipeline) -> tuple[object, object]:
    bound = compiled.nodes[1].inputs["table"]
    assert isinstance(bound, Inline)
    return compiled.params[0].default, bound.value


def test_files_are_named_relative_to_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data.csv").write_text("rows")
    monkeypatch.chdir(tmp_path / "sub")
    prepared = _prepare(tmp_path, "data.csv", "Path(__file__).parent / 'sub' / 'data.csv'")
    assert _names(prepared.ir) == ("sub/data.csv", "sub/data.csv")
    assert _names(_prepare(tmp_path, "new.csv", "Path('/dev/null')").ir) == ("new.csv", "/dev/null")


def test_files_that_steps_cannot_read_are_refused_or_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "large.csv").write_bytes(b"0" * 2**21)
    (tmp_path / "beside.csv").write_text("rows")
    monkeypatch.chdir(project)
    prepared = _prepare(project, "large.csv", "given")
    assert any("'large.csv' of parameter 'given' is not part of the source" in one for one in prepared.warnings)
    with pytest.raises(DefinitionError, match=r"'\.\./beside\.csv' is outside of the project .*make it a parameter"):
        _prepare(project, "large.csv", "Path('../beside.csv')")
    shutil.rmtree(project)


def test_threads_that_start_at_import_are_named_at_registration(tmp_path: Path) -> None:
    file = tmp_path / f"p{uuid.uuid4().hex}.py"
    file.write_text(
        "import threading\nEND = threading.Event()\n"
        "threading.Thread(target=END.wait, name='refresher', daemon=True).start()\n"
        "from penstock import pipeline, step\n@step\ndef one() -> int: return 1\n@pipeline\ndef main(): return one()\n"
    )
    pipeline = sources.load(file)
    prepared = sources.pack(pipeline, pipeline.compile())
    assert any("starts the thread 'refresher'" in one for one in prepared.warnings)
    pipeline.function.__globals__["END"].set()
