"""`penstock debug`: call the function of an attempt in the terminal, with the inputs that it had."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock_cli.arguments import RunArgument, resolve_run
from penstock_cli.display import output
from penstock_cli.errors import UsageError
from penstock_core import source_bundles

if TYPE_CHECKING:
    from penstock.client.client import Client
    from penstock.client.views import AttemptInputs

_TERMINAL = ("TERM", "COLORTERM", "NO_COLOR", "COLUMNS", "LINES", "EDITOR", "PYTHONBREAKPOINT", "INPUTRC")
"""Variables of the terminal and its debugger, which attempts on the platform do not have."""


def debug(
    name: RunArgument,
    step: Annotated[str, typer.Argument(metavar="STEP", help="Key of the step or item, such as train or train[3].")],
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, help="Number of the attempt; default last.")
    ] = None,
    pdb: Annotated[bool, typer.Option("--pdb", help="Open a debugger at the line that raises.")] = False,
    with_local_code: Annotated[
        bool, typer.Option("--with-local-code", help="Run the code of the current folder, not that of the run.")
    ] = False,
    python: Annotated[
        str | None, typer.Option("--python", metavar="PATH", help="Use this interpreter, whatever it has installed.")
    ] = None,
) -> None:
    """Call the function of a step again in this terminal, with the inputs, source and environment of an attempt.

    breakpoint() works. Nothing is written to the run or to the artifact store.
    """
    # Heavy imports stay out of `--help`.
    from penstock.client.artifacts import result_reader
    from penstock_cli.platform import session
    from penstock_cli.runs import interpreters

    with tempfile.TemporaryDirectory(prefix="penstock-debug-") as made:
        folder = Path(made)
        with session.connect() as connected:
            client = connected.client
            run_id = resolve_run(client, name)
            found = client.runs.attempt(run_id, step, attempt)
            variables = dict(found.request["env"])
            secrets = _secrets(found.request["secrets"])
            if python is None and found.request["environment"]:
                interpreter = interpreters.declared(found.request["environment"], found.environment, client.home)
                variables["PYTHONPATH"] = str(interpreters.modules(folder / "modules"))
            else:
                interpreter = python or interpreters.find(found.environment, found.interpreters)
            source = _local_source(found) if with_local_code else _unpack(client, found.source, folder / "source")
            fetched = result_reader.ArtifactCache(client.transport, client.home)
            _link_artifacts(found, fetched, folder / "artifacts")
        order = folder / "order.json"
        order.write_text(
            json.dumps(
                {
                    "attempt": found.request,
                    "checkpoint": found.checkpoint,
                    "source": str(source),
                    "artifacts": str(folder / "artifacts"),
                    "post_mortem": pdb,
                    "secrets": found.request["secrets"],
                }
            )
        )
        number = found.request["attempt"]
        code = "the code of this folder" if with_local_code else "the code of the run"
        output.note(f"attempt {number} of step {step} ({found.state}) of run {run_id}, with {code} and {interpreter}")
        ended = _call([interpreter, "-P", "-m", "penstock.runner.debugger", str(order)], variables | secrets)
    raise typer.Exit(ended)


def _secrets(uses: list[str]) -> dict[str, str]:
    """Return the variables of this terminal that have the secrets of the step, since the platform gives no value out.

    Raises:
        UsageError: one is not set.
    """
    from penstock_core.secrets import references

    wanted = {text: references.passed(text) or references.local_variable(text) for text in uses}
    missing = [f"{name} ({references.describe(text)})" for text, name in wanted.items() if name not in os.environ]
    if missing:
        raise UsageError(
            "the step uses secrets, whose values the platform gives to nobody: to debug it, set the variables "
            + ", ".join(missing)
        )
    return {name: os.environ[name] for name in wanted.values()}


def _call(command: list[str], variables: Mapping[str, str]) -> int:
    """Run the debugger in this terminal; Ctrl-C is for it alone."""
    from penstock_core import step_environment

    terminal = {name: os.environ[name] for name in _TERMINAL if name in os.environ}
    environment = {**step_environment.variables({}, os.environ), **terminal, **variables}
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        code = subprocess.run(command, env=environment, check=False).returncode
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be started: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    if code < 0:
        output.note(f"the process was killed by signal {-code} ({signal.Signals(-code).name})")
    return code if code >= 0 else 128 - code


def _unpack(client: Client, source: str, target: Path) -> Path:
    """Unpack the source bundle of the run."""
    bounds = source_bundles.Bounds()
    with tempfile.TemporaryFile() as file:
        client.transport.download(f"/v1/artifacts/{source}", file)
        source_bundles.check_size(file.tell())
        file.seek(0)
        with tarfile.open(fileobj=file, mode=source_bundles.READ_MODE) as tar:
            for member in tar:
                bounds.admit(member.name, member.size)
            tar.extractall(target, filter="data")
    return target


def _local_source(found: AttemptInputs) -> Path:
    """Return the current folder, if it has the module of the step.

    Raises:
        UsageError: it has not.
    """
    module = found.request["entrypoint"].partition(":")[0]
    here = Path.cwd()
    stem = here.joinpath(*module.split("."))
    if not any(path.is_file() for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py")):
        raise UsageError(
            f"--with-local-code: the current folder {here} has no module {module!r}: "
            f"change to the folder that has {module.replace('.', '/')}.py"
        )
    return here


def _link_artifacts(found: AttemptInputs, fetched: Any, root: Path) -> None:
    """Make a store of the objects that the inputs and the checkpoint refer to, without a copy of them."""
    from penstock.client.artifacts import result_reader
    from penstock.serialize import folders
    from penstock.store import FolderStore

    own = FolderStore(root)
    for value in (*found.request["inputs"].values(), found.checkpoint or {}):
        fetched.fetch(value)
        for reference in result_reader.references(value):
            for sha256 in (str(reference["sha256"]), *folders.parts(reference, fetched)):
                target = own.path(sha256)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.is_symlink():
                    target.symlink_to(fetched.path(sha256).absolute())
