"""`track`: files written into the state folder."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from penstock import context, track
from penstock.errors import NotInScriptsError, PlatformFailedError
from penstock_core import ids


def folder(home: Path) -> Path:
    (found,) = (path for path in (home / "tracked").iterdir() if path.name[0] != ".")
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def test_a_tracked_run_writes_a_folder_with_everything_logged(tmp_path: Path) -> None:
    with track("my experiment", params={"depth": 3, "odd": {1}}, tags={"team": "vision"}, home=tmp_path) as run:
        assert context() is run
        assert ids.check_name(run.run_id)
        assert (run.name, run.pipeline, run.step) == ("my experiment", "my-experiment", "script")
        run.log_metric("loss", 0.5, step=1)
        context().log_param("rate", 0.1)
        run.set_tag("fold", 2)
        run.log_artifact("model", b"bytes")
        run.log_table("rows", [{"a": 1}])
        run.checkpoint([1, 2])
    assert context() is not run
    found = folder(tmp_path)
    assert found.name == run.run_id
    begin, end, about = (read(found / f"{name}.json") for name in ("begin", "end", "about"))
    assert begin["inputs"] == {"depth": 3, "odd": "{1}"}
    assert begin["name"] == "my experiment"
    assert (end["outcome"], end["metrics"], end["params"]) == ("succeeded", {"loss": 0.5}, {"rate": 0.1})
    assert end["tags"] == {"team": "vision", "fold": "2"}
    assert set(end["artifacts"]) == {"model", "rows"}
    assert about["environment"]["packages"]["pytest"]
    sha256 = end["artifacts"]["model"]["artifact"]["sha256"]
    assert (tmp_path / "artifacts" / "sha256" / sha256[:2] / sha256).read_bytes() == b"bytes"
    assert (tmp_path / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize(
    ("error", "outcome", "kind"),
    [
        (ValueError("no"), "failed", "ValueError"),
        (KeyboardInterrupt(), "cancelled", "Cancelled"),
        (SystemExit(3), "failed", "Exit"),
        (SystemExit(0), "succeeded", None),
    ],
)
def test_the_exit_of_the_block_decides_the_outcome(
    tmp_path: Path, error: BaseException, outcome: str, kind: str | None
) -> None:
    with pytest.raises(type(error)), track("fit", home=tmp_path):
        raise error
    end = read(folder(tmp_path) / "end.json")
    assert (end["outcome"], end.get("error", {}).get("type")) == (outcome, kind)
    if kind == "ValueError":
        assert "raise error" in end["error"]["traceback"]


def test_a_script_can_register_a_model(tmp_path: Path) -> None:
    with (
        track("fit", home=tmp_path) as run,
        pytest.raises(NotInScriptsError, match=r"`penstock models register churn \w+ script"),
    ):
        run.register_model("churn", {"w": 1})


def test_the_lock_is_held_while_the_script_runs(tmp_path: Path) -> None:
    with track("fit", home=tmp_path):
        handle = os.open(folder(tmp_path) / "lock", os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(handle)


def test_a_forked_child_leaving_the_block_does_not_finish_the_run(tmp_path: Path) -> None:
    script = dedent(f"""
        import os
        from penstock import track
        with track("fit", home={str(tmp_path)!r}) as run:
            child = os.fork()
            run.log_metric("both", float(child == 0))
            if child:
                os.waitpid(child, 0)
                assert not os.path.exists(f"{tmp_path}/tracked/{{run.run_id}}/end.json")
    """)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    found = folder(tmp_path)
    assert read(found / "end.json")["outcome"] == "succeeded"
    assert sorted(json.loads(line)[3] for line in (found / "run.points").read_text().splitlines()) == [0.0, 1.0]


WRONG: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no name": ("", {}, ValueError, "track: the name must have 1 to 200 characters"),
    "a name of two lines": ("a\nb", {}, ValueError, "control characters"),
    "a number": (3, {}, TypeError, "track: the name must be text, not int"),
    "a list of parameters": ("a", {"params": [1]}, TypeError, "params must be a dictionary, not list"),
    "a parameter without name": ("a", {"params": {1: 2}}, TypeError, r"track\('a'\), params: the name must be text"),
}


@pytest.mark.parametrize(("name", "more", "error", "text"), WRONG.values(), ids=WRONG.keys())
def test_invalid_arguments_are_rejected_at_once(
    tmp_path: Path, name: Any, more: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        track(name, home=tmp_path, **more)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "tracked").write_text("a file")
    with (
        pytest.raises(PlatformFailedError, match=r"cannot be recorded in .*set PENSTOCK_HOME"),
        track("a", home=tmp_path / "home"),
    ):
        raise AssertionError("not reached")


def test_concurrent_scripts(tmp_path: Path) -> None:
    script = dedent(f"""
        import time
        from penstock import track
        began = time.perf_counter()
        with track("fit", home={str(tmp_path)!r}) as run:
            for n in range(5000):
                run.log_metric("loss", n, step=n)
        print(time.perf_counter() - began)
    """)
    both = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    times = [float(one.communicate(timeout=120)[0]) for one in both]
    assert len(list((tmp_path / "tracked").iterdir())) == 2
    assert all(
        len((path / "run.points").read_bytes().splitlines()) == 5000 for path in (tmp_path / "tracked").iterdir()
    )
    assert max(times) < 30
