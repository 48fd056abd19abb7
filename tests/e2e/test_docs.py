"""Run every example of the documentation: write files, run commands, compare outputs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.client import embedded
from penstock_testkit.docs import pages
from penstock_testkit.docs.pages import Block, Command
from penstock_testkit.docs.shell import BackgroundCommand, Shell
from penstock_testkit.environment import platforms_below
from penstock_testkit.servers.package_index import PackageIndex
from penstock_testkit.servers.s3 import SECRET_KEY, S3Server

ROOT = Path(__file__).parents[2]
PAGES = pages.pages(ROOT)
S3_PORT = "9000"
"""The S3 address in pages; a server is started for pages that contain it."""


class Reader:
    """Runs the blocks of a page, from top to bottom, in a separate folder."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.problems: list[str] = []

    def read(self, text: str) -> None:
        """Run all blocks of the page."""
        done = [block for block in pages.blocks(text) if "not run" not in block.marks]
        typed = "\n".join(block.text for block in done if block.language == "console")
        for block in done:
            if block.file is not None:
                self.shell.write(block.file, block.text)
                if block.file.endswith(".py") and block.file not in typed:
                    self.import_file(block, block.file)
            elif block.language == "python":
                self.python(block)
            elif block.language == "console":
                self.console(block)

    def import_file(self, block: Block, name: str) -> None:
        module = name.removesuffix(".py").replace("/", ".")
        code, output = self.shell.run(f"python -c 'import {module}'")
        self.expect(code == int(block.marks.get("exits", 0)), block.line, f"importing {name} fails", output)

    def python(self, block: Block) -> None:
        # Outside the project, so that it is not part of the source.
        script = self.shell.write("../script.txt", block.text)
        session = f"-m doctest -o ELLIPSIS -o NORMALIZE_WHITESPACE {script}"
        code, output = self.shell.run(f"python {session if block.text.startswith('>>>') else f'- < {script}'}")
        self.expect(code == 0, block.line, "the script fails", output)

    def console(self, block: Block) -> None:
        kept = {"all": len(block.commands), "": 1, None: 0}[block.marks.get("kept running")]
        done = block.commands[: len(block.commands) - kept]
        for command in done:
            self.command(command, block)
        self.keep(block.commands[len(done) :])

    def command(self, command: Command, block: Block) -> None:
        code, output = self.shell.run(command.text)
        wanted = int(block.marks.get("exits", 0))
        self.expect(code == wanted, command.line, f"`{command.text}` ends with {code}, not {wanted}", output)
        self.expect_lines(command, pages.missing(command.shown, output), output)

    def keep(self, commands: list[Command]) -> None:
        for command, kept in [(command, self.shell.keep(command.text)) for command in commands]:
            before, after = _parted(command.shown)
            self.expect_lines(command, kept.wait_for_lines(before), kept.output())
            if after is not None:
                self.interrupt(command, kept, after)

    def interrupt(self, command: Command, kept: BackgroundCommand, shown: tuple[str, ...]) -> None:
        code = kept.interrupt()
        self.expect(code == 0, command.line, f"after Ctrl-C `{command.text}` ends with {code}", kept.output())
        self.expect_lines(command, kept.wait_for_lines(shown), kept.output())

    def expect_lines(self, command: Command, missing: list[str], output: str) -> None:
        shown = "\n".join(f"    {line}" for line in missing)
        self.expect(not missing, command.line, f"`{command.text}` does not print\n{shown}", output)

    def expect(self, true: bool, line: int, problem: str, output: str) -> None:
        if not true:
            self.problems.append(
                f"line {line}: {problem}\n  but\n" + "\n".join(f"    {o}" for o in output.splitlines())
            )

    def close(self) -> None:
        self.shell.close()
        # A command that failed may have begun to start a platform, whose address is written later.
        folder, deadline = self.shell.folder.parent, time.monotonic() + 60
        while platforms_below(folder) and time.monotonic() < deadline:
            for note in folder.rglob("platform.json"):
                embedded.stop_unused(note.parent)
            time.sleep(0.1)


def _parted(shown: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Split the output into the parts before and after Ctrl-C; None without Ctrl-C."""
    for index, line in enumerate(shown):
        if line.startswith("^C"):
            return shown[:index], tuple(line for line in (line.removeprefix("^C"), *shown[index + 1 :]) if line)
    return shown, None


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in ("PENSTOCK_HOME", "PENSTOCK_URL", "PENSTOCK_TOKEN", "PENSTOCK_NATS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PENSTOCK_ACK_WAIT", "1.5")
    return Shell(tmp_path, {"a-secret-key": SECRET_KEY})


@pytest.fixture
def index() -> Iterator[PackageIndex]:
    """A package index, for pages that declare environments."""
    with PackageIndex() as found:
        for version in ("22.1.0", "22.2.0", "26.1.0"):
            found.add("attrs", version, code=f"__version__ = {version!r}\n", module="attr")
        yield found


@pytest.fixture
def reader(shell: Shell) -> Iterator[Reader]:
    made = Reader(shell)
    yield made
    made.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page(page: Path, reader: Reader, request: pytest.FixtureRequest) -> None:
    text = page.read_text()
    if f":{S3_PORT}" in text:
        server: S3Server = request.getfixturevalue("s3_server")
        reader.shell.ports[S3_PORT] = server.endpoint.rpartition(":")[2]
    if "import Environment" in text:
        url = request.getfixturevalue("index").url
        port = url.partition("//")[2].partition("/")[0].rpartition(":")[2]
        reader.shell.ports[port] = port  # it is free to be used as it is
        reader.shell.run(f"export UV_DEFAULT_INDEX={url} UV_CACHE_DIR={reader.shell.folder.parent / 'uv-cache'}")
    reader.read(text)
    assert not reader.problems, f"{page.relative_to(ROOT)}\n" + "\n\n".join(reader.problems)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_block_runs_or_states_why_not(page: Path) -> None:
    for block in pages.blocks(page.read_text()):
        if any(line.startswith("$ ") for line in block.lines):
            assert block.language == "console", f"line {block.line}: commands belong into a block of `console`"
        assert block.marks.get("not run") != "", f"line {block.line}: say why it is not run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for target, anchor in pages.links(page.read_text()):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        if anchor and file.suffix == ".md":
            assert anchor in pages.anchors(file.read_text()), f"{page.name} links to {target}#{anchor}"


WRONG = {
    "a line that is not printed": "```console\n$ echo one\ntwo\n```\n",
    "a line of which a part is not printed": "```console\n$ echo one and two\none … three\n```\n",
    "another exit code": "```console\n$ false\n```\n",
    "a failure that does not come": "<!-- exits 2 -->\n```console\n$ true\n```\n",
    "a file that cannot be imported": "```python\n# file: wrong.py\nimport nothing_of_this_name\n```\n",
    "a script that raises": "```python\nassert 1 == 2\n```\n",
    "a session with another result": "```python\n>>> 1 + 1\n3\n```\n",
    "a command that should go on": "<!-- kept running -->\n```console\n$ echo one\ntwo\n```\n",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_page_is_detected(reader: Reader, text: str) -> None:
    reader.read(text)
    assert len(reader.problems) == 1, reader.problems


def test_values_that_vary_between_runs_are_not_compared(reader: Reader) -> None:
    reader.read(
        "```console\n"
        "$ echo 'run k4v8m5pzeg6h77xrby4gwk5xtg took 1.05 s at 07:04:00.062, 16 B'; pwd\n"
        "run kvayyrx5pzmfr1cbf3nmttbkc7 took 33 ms at 11:14:00, 1.6 kB\n"
        "/home/ada/project\n"
        "$ cd /tmp; export SEEN=yes; false || true\n"
        "$ echo $SEEN in $PWD of something long\n"
        "yes in /tmp … long\n"
        "```\n"
    )
    assert reader.problems == []
