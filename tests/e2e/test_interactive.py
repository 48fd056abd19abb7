"""Pipelines of scripts, of notebooks and of Python's prompt run on the platform with `Client().run(pipeline)`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from penstock import Client
from penstock.client.embedded import EmbeddedPlatform
from penstock_testkit.docs import pages

DEFINITIONS = """
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers import shout
from penstock import Client, pipeline, step


@dataclass
class Config:
    depth: int
    names: list[str]


@dataclass
class Result:
    score: float
    config: Config


FACTOR = 3
here = Path("data.txt").read_text().strip()


def scaled(value: int) -> int:
    return value * FACTOR


@step
def fit(config: Config) -> Result:
    print(shout("fitting"), here, __name__)
    return Result(float(np.float64(scaled(config.depth))), config)


@pipeline
def training(config: Config):
    return fit(config)
"""

RUN = """
client = Client()
run = client.run(training, {"config": Config(4, ["a"])}, wait=True)
result = client.artifacts.load(run.run_id, "fit")
print(run.state, result, type(result) is Result)
"""

EXPECTED = "succeeded Result(score=12.0, config=Config(depth=4, names=['a'])) True"


class Project:
    """A folder with a helper module, a data file and a platform."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mine = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        self.environment = {**mine, "XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder), "TERM": "dumb"}
        (folder / "helpers.py").write_text("def shout(text):\n    return text.upper()\n")
        (folder / "data.txt").write_text("from a file\n")

    def script(self, name: str, text: str) -> tuple[int, str]:
        (self.folder / name).write_text(text)
        return self.python(name)

    def python(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    made = Project(tmp_path_factory.mktemp("interactive"))
    kept = EmbeddedPlatform(made.folder / ".penstock")
    kept.start()
    kept.wait()
    yield made
    kept.close()


class Kernel:
    """A Jupyter kernel, as a notebook uses it."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client

    def run(self, code: str) -> tuple[str, dict[str, Any]]:
        """Run a cell; return what it prints or raises, and its result by media type."""
        printed: list[str] = []
        result: dict[str, Any] = {}

        def read(message: dict[str, Any]) -> None:
            content = message["content"]
            match message["msg_type"]:
                case "stream":
                    printed.append(content["text"])
                case "error":
                    printed.append(f"{content['ename']}: {content['evalue']}\n")
                case "execute_result":
                    result.update(content["data"])
                case _:
                    pass

        self._client.execute_interactive(code, output_hook=read, timeout=120)
        return "".join(printed), result


@pytest.fixture(scope="module")
def kernel(project: Project) -> Iterator[Kernel]:
    manager = KernelManager(transport="ipc", ip=str(project.folder / "kernel"))
    manager.start_kernel(cwd=str(project.folder), env=project.environment)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=90)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_script_runs_its_pipeline(project: Project) -> None:
    body = "".join(f"    {line}\n" for line in RUN.strip().splitlines())
    code, output = project.script("training_script.py", f'{DEFINITIONS}\n\nif __name__ == "__main__":\n{body}')
    assert output.strip() == EXPECTED
    assert code == 0
    run = Client(home=project.folder / ".penstock").runs.list(limit=1)[0]
    printed = [
        str(line).strip() for line in Client(home=project.folder / ".penstock").runs.logs(run.run_id, follow=False)
    ]
    assert printed == ["FITTING from a file training_script"]


def test_a_module_that_is_run_by_its_name_keeps_it(project: Project) -> None:
    package = project.folder / "tools"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "settings.py").write_text("SIZE = 4\n")
    text = "from tools.settings import SIZE\nfrom .settings import SIZE as SAME\n"
    text += "from penstock import Client, pipeline, step\n\n"
    text += "@step\ndef s() -> str:\n    return f'{__name__} {SIZE + SAME}'\n\n@pipeline\ndef p():\n    return s()\n\n"
    text += "if __name__ == '__main__':\n    client = Client()\n    run = client.run(p, wait=True)\n"
    text += "    print(client.artifacts.load(run.run_id, 's'))\n"
    (package / "tool.py").write_text(text)
    assert project.python("-m", "tools.tool") == (0, "tools.tool 8\n")


def test_a_script_without_guard_is_refused_at_the_line_of_the_call(project: Project) -> None:
    code, output = project.script("unguarded.py", DEFINITIONS + RUN)
    line = (DEFINITIONS + RUN).splitlines().index('run = client.run(training, {"config": Config(4, ["a"])}, wait=True)')
    assert f"unguarded.py:{line + 1}: the script registers or runs pipeline 'training' whenever it is impor" in output
    assert "if __name__ == '__main__':" in output
    assert code == 1


def test_a_notebook_runs_its_pipeline(kernel: Kernel) -> None:
    assert kernel.run("%matplotlib inline\nnotes = !echo of the shell\nprint(notes)")[0] == "['of the shell']\n"
    assert kernel.run(DEFINITIONS) == ("", {})
    printed, _ = kernel.run(RUN)
    assert printed.strip() == EXPECTED
    # The same cells again are the same version, whatever their numbers are.
    version, _ = kernel.run("print(run.version)")
    assert kernel.run("raise RuntimeError('not part of the module')")[0].startswith("RuntimeError")
    kernel.run(DEFINITIONS)
    assert kernel.run(RUN)[0].strip() == EXPECTED
    assert kernel.run("print(run.version)")[0] == version


def test_present_definitions_count(kernel: Kernel) -> None:
    kernel.run(DEFINITIONS)
    kernel.run("FACTOR = 5\nfor extra in range(4):\n    FACTOR += extra")
    assert "Result(score=44.0, " in kernel.run(RUN)[0]
    kernel.run("def scaled(value: int) -> int:\n    return -value")
    assert "Result(score=-4.0, " in kernel.run(RUN)[0]
    kernel.run("@step\ndef fit(config: Config) -> Result:\n    return Result(0.5, Config(1, []))")
    assert "Result(score=0.5, config=Config(depth=1, names=[])) True" in kernel.run(RUN)[0]


REFUSED = {
    "a value of the shell": (
        "files = !ls",
        "files",
        "'uses' uses 'files', a SList that cell [",
        "with a magic or a shell command (line 1)",
    ),
    "a changed list": ("names = ['a']\nnames.append('b')", "names", "'names' is another value in this session", ""),
    "a changed dictionary": ("table = {}\ntable['a'] = 1", "table", "a dict that cell [", "changes (line 2)"),
    "a value of itself": ("text = 'a'\ntext = text * 2", "text", "'text', a str that cell [", "its own earlier value"),
    "a loop": ("for word in ['a']:\n    kept = word + 'b'", "kept", "'kept', a str that no assignment", "as an input"),
    "a random value": ("import os\nnoise = os.urandom(8)", "noise", "'noise' is another value in this session", ""),
}


@pytest.mark.parametrize(("cell", "name", "begin", "end"), REFUSED.values(), ids=REFUSED.keys())
def test_values_that_would_differ_are_refused(kernel: Kernel, cell: str, name: str, begin: str, end: str) -> None:
    kernel.run("from penstock import Client, pipeline, step")
    kernel.run(cell)
    kernel.run(f"@step\ndef uses() -> str:\n    return str({name})\n\n@pipeline\ndef using():\n    return uses()")
    printed, _ = kernel.run("Client().run(using)")
    assert printed.startswith("SourceError: ")
    assert begin in printed
    assert end in printed


def test_definitions_below_a_magic_that_runs_the_cell_travel(kernel: Kernel) -> None:
    kernel.run("%%time\nfrom penstock import Client, pipeline, step")
    kernel.run("%%time\n@step\ndef timed() -> int:\n    return 6\n\n@pipeline\ndef timing():\n    return timed()")
    assert kernel.run("print(Client().run(timing, wait=True).state)")[0] == "succeeded\n"


def test_what_only_notebooks_have_is_refused(kernel: Kernel) -> None:
    kernel.run("from penstock import Client, pipeline, step")
    kernel.run("@step\ndef shows() -> None:\n    display(1)\n\n@pipeline\ndef showing():\n    shows()")
    expected = "SourceError: 'shows' uses 'display', which only notebooks have: import it in a cell"
    assert expected in kernel.run("Client().run(showing)")[0]
    kernel.run("from IPython.display import display")
    assert kernel.run("print(Client().run(showing, wait=True).state)")[0] == "succeeded\n"


def test_later_imports_are_those_of_the_folder_of_the_notebook(project: Project, kernel: Kernel) -> None:
    kernel.run(DEFINITIONS)
    (project.folder / "imported_later.py").write_text("")
    kernel.run(RUN)
    assert kernel.run("import imported_later\nprint(imported_later.__file__)")[0].startswith(str(project.folder))


def test_magics_in_steps_are_refused(kernel: Kernel) -> None:
    kernel.run("from penstock import Client, pipeline, step")
    kernel.run("@step\ndef uses() -> int:\n    !ls\n    return 1\n\n@pipeline\ndef using():\n    return uses()")
    assert "SourceError: 'uses' uses a magic or a shell command" in kernel.run("Client().run(using)")[0]


def test_runs_are_shown_as_html_and_as_a_table(kernel: Kernel) -> None:
    kernel.run(DEFINITIONS)
    kernel.run(RUN)
    _, shown = kernel.run("run")
    assert "<b>training v" in shown["text/html"]
    assert shown["text/plain"].startswith("Run(")
    printed, _ = kernel.run("table = client.runs.frame('training', limit=2)\nprint(list(table.columns), len(table))")
    assert printed == "['run', 'pipeline', 'version', 'state', 'created', 'duration', 'inputs.config'] 2\n"


def test_the_prompt_of_python_runs_its_pipeline(project: Project) -> None:
    with pexpect.spawn(
        sys.executable,
        ["-q"],
        cwd=str(project.folder),
        env=project.environment,
        encoding="utf-8",
        timeout=90,
        dimensions=(40, 200),
    ) as prompt:
        prompt.expect_exact(">>> ")
        for line in prompt_lines(DEFINITIONS + RUN):
            prompt.sendline(line)
            prompt.expect([r">>> \Z", r"\.\.\. \Z"])
            last = str(prompt.before)
        prompt.sendline("exit()")
        prompt.expect(pexpect.EOF)
    assert EXPECTED in last.replace("\r\n", "\n")


def prompt_lines(text: str) -> Iterator[str]:
    """The lines that a person types: an empty one ends each block, and none is inside of one."""
    block = previous = ""
    for line in filter(None, text.splitlines()):
        starts = not line.startswith(" ") and not previous.startswith("@")
        if block and starts:
            yield ""
        if starts:
            block = line if line.startswith(("@", "def ", "class ")) else ""
        yield line
        previous = line
    if block:
        yield ""


def test_the_cells_of_the_documentation_run(project: Project, kernel: Kernel) -> None:
    page = (Path(__file__).parents[2] / "docs" / "notebooks.md").read_text()
    blocks = list(pages.blocks(page))
    for block in blocks:
        if block.file == "helpers.py":
            (project.folder / "page_helpers.py").write_text(block.text)
    cells = [block.text for block in blocks if block.marks.get("not run", "").startswith("a cell")]
    assert len(cells) == 5
    results = [kernel.run(cell.replace("from helpers", "from page_helpers")) for cell in cells]
    assert results[2][1]["text/plain"] == "2.0"
    refusal = re.sub(r"cell \[\d+\]", "cell [4]", results[3][0].strip())
    assert f"# {refusal}\n" in cells[3]
    assert "<b>means v1</b>" in results[4][1]["text/html"] and "mean=2" in results[4][1]["text/html"]
