"""Registered models from Python: the part of `Client` that is about them.

    client = Client()
    champion = client.model("churn@champion")            # also "churn" (the latest) and "churn:3"
    champion.metrics["accuracy"], champion.run_id
    estimator = champion.load()
    client.promote("churn", 3, "champion", reason="better on the holdout")

Times are Unix seconds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat, cast

from penstock.client import views
from penstock.client.transport import Transport
from penstock.client.waits import user
from penstock.step_context.models import check_tags, finite_metrics
from penstock_core import ids
from penstock_core.registry import references
from penstock_core.registry.facts import check_alias

if TYPE_CHECKING:
    from penstock.client.client import Client


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened to a model.

    `kind` is `registered`, `promoted`, `promotion-refused`, `alias-removed`, `gate-set`, `archived` or `restored`;
    `clauses` say what came of the gate, `cause` is the attempt that asked for it.
    """

    place: int
    kind: str
    at: float
    by: str = ""
    version: int | None = None
    alias: str | None = None
    previous: int | None = None
    reason: str = ""
    gate: str = ""
    clauses: tuple[str, ...] = ()
    forced: bool = False
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias, the version that it stands for (None: there is only a gate), and what its moves have to pass."""

    alias: str
    version: int | None = None
    since: float = 0.0
    by: str = ""
    reason: str = ""
    forced: bool = False
    gate: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a version did not get the alias: what was asked of it, and what came of each comparison."""

    alias: str
    gate: str = ""
    clauses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model. It never changes; `aliases` and `archived` are as of when it was asked for.

    Attributes:
        model: name of the model.
        artifact: the reference of what it is made of, as JSON: `sha256`, `size`, `format`, `python_type`, `unsafe` ….
        run_id: the run it comes from; `step`, `attempt` and `output` say what it was there.
        metrics: measurements that gates compare; `non_finite` are those that are no finite numbers, as text.
        code: digest of the step's code, where that can be told.
        refused: why it did not get the alias that it was registered for; only after `Client.register_model`.
    """

    model: str
    version: int
    reference: str = ""
    aliases: tuple[str, ...] = ()
    archived: bool = False
    artifact: dict[str, Any] = field(default_factory=dict[str, Any])
    run_id: str = ""
    step: str = ""
    attempt: int = 1
    output: str = ""
    pipeline: str = ""
    pipeline_version: int = 0
    code: str = ""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    non_finite: dict[str, str] = field(default_factory=dict[str, str])
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    description: str = ""
    by: str = ""
    at: float = 0.0
    created: bool = False
    refused: Refusal | None = None
    client: Client | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        named = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"ModelVersion({self.model}:{self.version}{named})"

    @property
    def sha256(self) -> str:
        """Digest of the artifact."""
        return str(self.artifact["sha256"])

    @property
    def size(self) -> int:
        """Bytes of the artifact; of a folder, of all its files."""
        return int(self.artifact.get("total") or self.artifact["size"])

    @property
    def format(self) -> str:
        """How the artifact is kept, such as `pickle`, `skops`, `safetensors`, `folder`."""
        return str(self.artifact["format"])

    @property
    def unsafe(self) -> bool:
        """Whether loading it can run code."""
        return bool(self.artifact.get("unsafe"))

    def load(self, *, unsafe: bool = True) -> Any:
        """The model as a Python object.

        Pickles are loaded here, in your own process: only do so with models whose code you trust.

        Args:
            unsafe: False refuses formats whose loading can run code.

        Raises:
            UnsafeRefused: it is of such a format.
            NotFound: the artifact is not in the store any more.
        """
        # Serializers are needed by those who load only.
        from penstock import serialize
        from penstock.client import value_reader

        value, artifact_cache = self._fetched(value_reader)
        paths = self.format in ("file", "folder")
        folder = Path(tempfile.mkdtemp(prefix="penstock-")) if paths else None
        return serialize.load(value, Any, artifact_cache, folder=folder, where=f"model {self.reference}", unsafe=unsafe)

    def download(self, to: str | Path = ".") -> Path:
        """Write the artifact into the folder `to`, or as the file (or, of a folder, the folder) `to`.

        Returns where it lies. Nothing is loaded.
        """
        from penstock.client import value_reader

        value, artifact_cache = self._fetched(value_reader)
        to = Path(to)
        target = to / value_reader.filename(value, f"{self.model}-{self.version}") if to.is_dir() else to
        target.parent.mkdir(parents=True, exist_ok=True)
        value_reader.write(value, artifact_cache, target)
        return target

    def lineage(self) -> dict[str, Any]:
        """The attempts that it was made by (`up`) and those that used it (`down`), as JSON, nearest first."""
        return self._client().transport.json("GET", f"/v1/artifacts/{self.sha256}/lineage")

    def history(self) -> list[HistoryEntry]:
        """What happened to this version, in order; `Client.model_history` has that of the whole model."""
        everything = self._client().model_history(self.model)
        return [one for one in everything if self.version in (one.version, one.previous)]

    def _fetched(self, value_reader: Any) -> tuple[dict[str, Any], Any]:
        value = {"artifact": self.artifact}
        artifact_cache = value_reader.ArtifactCache(self._client())
        artifact_cache.fetch(value)
        return value, artifact_cache

    def _client(self) -> Client:
        if self.client is None:
            raise ValueError(f"{self!r} was not given by a client: ask `Client().model({self.reference!r})`")
        return self.client


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model. In lists `versions` are numbers only; `latest` is the newest version that is offered."""

    name: str
    versions: int = 0
    latest: int | None = None
    aliases: dict[str, int] = field(default_factory=dict[str, int])
    changed_at: float = 0.0


class Models:
    """The part of `Client` that is about registered models."""

    transport: Transport

    def models(self) -> list[RegisteredModel]:
        """All registered models, by name."""
        return [views.build(RegisteredModel, row) for row in self.transport.json("GET", "/v1/models")["models"]]

    def model(self, reference: str) -> ModelVersion:
        """A version of a model: `churn` (the latest), `churn@champion` (by an alias) or `churn:3` (by its number).

        Raises:
            InvalidId: the text is no reference.
            NotFound: there is no such model, version or alias.
        """
        wanted = references.parse(reference)
        which = f"aliases/{wanted.alias}" if wanted.alias else f"versions/{wanted.version or 'latest'}"
        return self._version(self.transport.json("GET", f"{_path(wanted.model)}/{which}"))

    def model_versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, the newest first, archived ones too.

        Raises:
            NotFound: there is no such model.
        """
        return [self._version(row) for row in self.transport.json("GET", _path(name))["versions"]]

    def model_aliases(self, name: str) -> list[Alias]:
        """The aliases of a model by name, with their gates.

        Raises:
            NotFound: there is no such model.
        """
        return [views.build(Alias, row) for row in self.transport.json("GET", _path(name))["aliases"]]

    def model_history(self, name: str) -> list[HistoryEntry]:
        """All that happened to a model, in order: what, who, when, why.

        Raises:
            NotFound: there is no such model.
        """
        rows = self.transport.json("GET", f"{_path(name)}/history")["history"]
        return [views.build(HistoryEntry, row, clauses=tuple(row.get("clauses") or ())) for row in rows]

    def register_model(
        self,
        name: str,
        run_id: str,
        step: str,
        output: str = "result",
        *,
        metrics: Mapping[str, SupportsFloat] | None = None,
        alias: str | None = None,
        gate: str = "",
        force: bool = False,
        reason: str = "",
        description: str = "",
        tags: Mapping[str, str] | None = None,
        by: str | None = None,
    ) -> ModelVersion:
        """Make a version of a model from an output, or a logged artifact, of a step that has succeeded.

        The same output of the same attempt is the same version, however often it is registered. From inside the step
        it is `context().register_model(name, model)`.

        Args:
            name: name of the model.
            run_id: the run.
            step: key of the step.
            output: name of its output or artifact.
            metrics: what gates compare; default those that the step logged.
            alias: an alias for it, if it passes the gates; if it does not, the result's `refused` says why.
            gate: what it has to pass for the alias, besides the alias's own gate.
            force: pass the gates by; takes a `reason`.
            reason: why it shall have the alias.
            description: for people.
            tags: texts to tell versions apart by.
            by: who registers it; default the name of the user of this process.

        Raises:
            NotFound: there is no such run, step or output, or its artifact is not in the store.
            Refused: the output is no artifact, or a field is not valid.
            TypeError: a metric is no number.
        """
        where = f"register_model({name!r})"
        numbers = None
        if metrics is not None:
            finite, non_finite = finite_metrics(where, metrics)
            if non_finite:
                raise ValueError(
                    f"{where}: metric {next(iter(non_finite))!r} is {next(iter(non_finite.values()))}, "
                    "which is no number"
                )
            numbers = finite
        body = {
            "run_id": run_id,
            "step": step,
            "output": output,
            "metrics": numbers,
            "alias": alias,
            "gate": gate,
            "force": force,
            "reason": reason,
            "description": description,
            "tags": check_tags(where, tags or {}),
            "by": _by(by),
        }
        answer = self.transport.json("POST", f"{_path(name)}/versions", body=body)
        refused = answer.get("refused")
        return self._version(
            answer["version"],
            created=bool(answer.get("created")),
            refused=views.build(Refusal, refused, clauses=tuple(refused.get("clauses") or ())) if refused else None,
        )

    def promote(
        self,
        name: str,
        version: int,
        alias: str,
        *,
        reason: str = "",
        gate: str = "",
        force: bool = False,
        replaces: int | None = None,
        by: str | None = None,
    ) -> Alias:
        """Have an alias stand for a version; what it stands for already changes nothing.

        Args:
            name: name of the model.
            version: number of the version.
            alias: such as `champion`.
            reason: why, for people.
            gate: what it has to pass, besides the alias's own gate: `accuracy > champion.accuracy + 0.01`.
            force: pass the gates by; takes a `reason`, and the history says so.
            replaces: the version that the alias has to stand for now, 0 for none: else it is refused.
            by: who does it; default the name of the user of this process.

        Raises:
            NotFound: there is no such model or version.
            Refused: it does not pass a gate (each comparison is told with its numbers), is archived, or the alias
                does not stand where `replaces` says.
        """
        body = {
            "version": version,
            "reason": reason,
            "gate": gate,
            "force": force,
            "replaces": replaces,
            "by": _by(by),
        }
        answer = self.transport.json("PUT", f"{_path(name)}/aliases/{check_alias(alias)}", body=body)
        return views.build(Alias, answer["alias"])

    def delete_alias(self, name: str, alias: str, *, reason: str = "", by: str | None = None) -> None:
        """Have an alias stand for nothing. Its history stays.

        Raises:
            NotFound: there is no such model or alias.
        """
        query = {"reason": reason or None, "by": _by(by) or None}
        self.transport.json("DELETE", f"{_path(name)}/aliases/{check_alias(alias)}", query=query)

    def set_gate(self, name: str, alias: str, gate: str, *, reason: str = "", by: str | None = None) -> None:
        """Have every move of an alias pass a gate from now on; an empty text removes it.

        Raises:
            Refused: the gate cannot be read; says where.
        """
        body = {"gate": gate, "reason": reason, "by": _by(by)}
        self.transport.json("PUT", f"{_path(name)}/gates/{check_alias(alias)}", body=body)

    def archive_model(
        self, name: str, version: int, *, reason: str = "", undo: bool = False, by: str | None = None
    ) -> ModelVersion:
        """Offer a version no more, or with `undo` again. Its artifact and its history stay.

        Raises:
            NotFound: there is no such version.
            Refused: an alias stands for it.
        """
        body = {"archived": not undo, "reason": reason, "by": _by(by)}
        return self._version(self.transport.json("POST", f"{_path(name)}/versions/{version}/archive", body=body))

    def _version(self, row: Mapping[str, Any], **more: Any) -> ModelVersion:
        aliases = tuple(row.get("aliases") or ())
        return views.build(ModelVersion, row, aliases=aliases, client=cast("Client", self), **more)


def _path(name: str) -> str:
    return f"/v1/models/{ids.check_name(name, 'model')}"


def _by(by: str | None) -> str:
    return user() if by is None else by
