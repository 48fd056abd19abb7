"""Outputs and artifacts of runs, and the artifact store: `Client.artifacts`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from penstock.client.artifacts.lineage import Lineage, parse_lineage
from penstock.client.http.transport import Transport
from penstock.client.views import Preview, get_run

if TYPE_CHECKING:
    from penstock.client.artifacts.result_reader import ResultReader
    from penstock_core.artifacts.folders import File


class Artifacts:
    """`Client.artifacts`: load, download and preview outputs and artifacts; upload to the artifact store.

    In every method `step` is the key of a step, such as `train[3]` or `features/scale`; None selects an output of the
    run itself. `output` is the name of an output or of a logged artifact; `checkpoint` is a step's last checkpoint.
    """

    def __init__(self, transport: Transport, home: Path) -> None:
        self._transport = transport
        self._home = home

    def load(self, run_id: str, step: str | None = None, output: str = "result") -> Any:
        """Return an output or artifact as a Python object.

        Pickles are loaded in this process: use it only on runs whose code you trust.

        Raises:
            NotFoundError: there is no such run, step or output (yet).
        """
        return self.reader().load(get_run(self._transport, run_id), step, output)

    def download(
        self,
        run_id: str,
        step: str | None = None,
        output: str = "result",
        to: str | os.PathLike[str] = ".",
        file: str | None = None,
    ) -> Path:
        """Write an output or artifact into the folder `to`, or as the file `to`; return its path.

        With `file`, a path within an output that is a folder, only that file is fetched.

        Raises:
            NotFoundError: there is no such run, step or output (yet).
        """
        return self.reader().download(get_run(self._transport, run_id), step, output, Path(to), file)

    def preview(self, run_id: str, step: str | None = None, output: str = "result") -> Preview:
        """Return a preview: the first rows of a table, a thumbnail, the beginning of a text. Loads nothing.

        Raises:
            NotFoundError: there is no such run, step or output (yet).
        """
        return self.reader().preview(get_run(self._transport, run_id), step, output)

    def files(self, run_id: str, step: str | None = None, output: str = "result") -> list[File]:
        """Return the files of an output that is a folder, with sizes in bytes and digests. Fetches no contents.

        Raises:
            NotFoundError: there is no such run, step or output (yet).
            ClientError: the output is no folder.
        """
        return self.reader().files(get_run(self._transport, run_id), step, output)

    def lineage(self, sha256: str) -> Lineage:
        """Return the attempts that produced an artifact and those that used it, over all runs.

        Args:
            sha256: its digest, 64 hexadecimal digits, as in `run.steps["fit"].outputs["result"]["artifact"]["sha256"]`.

        Raises:
            NotFoundError: no run has such an artifact.
        """
        return parse_lineage(self._transport.json("GET", f"/v1/artifacts/{quote(sha256)}/lineage"))

    def upload(self, content: Path | bytes, sha256: str) -> bool:
        """Put a file, or bytes, into the artifact store under its digest; return False if it was there already."""
        path = f"/v1/artifacts/{sha256}"
        if self._transport.exists(path):
            return False
        self._transport.upload(path, content)
        return True

    def reader(self) -> ResultReader:
        """Return the reader of results. It imports the serializers, which most clients do not need."""
        from penstock.client.artifacts import result_reader

        return result_reader.ResultReader(self._transport, self._home)
