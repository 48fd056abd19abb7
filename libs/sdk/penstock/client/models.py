"""Registered models: versions, aliases and gates: `Client.models`.

    client = Client()
    champion = client.models.get("churn@champion")       # also "churn" (the latest published) and "churn:3"
    champion.metrics["accuracy"], champion.run_id
    estimator = champion.load()
    client.models.promote("churn", 3, "champion", reason="better on the holdout")

Times are Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsFloat

from penstock.client import views
from penstock.client.artifacts.artifacts import Artifacts
from penstock.client.artifacts.lineage import Lineage
from penstock.client.http.transport import Transport
from penstock.step_context.models import check_tags, finite_metrics
from penstock_core import ids
from penstock_core.registry import references
from penstock_core.registry.facts import check_alias


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A change of a model.

    Attributes:
        revision: index in the model's log.
        kind: `registered`, `promoted`, `promotion-refused`, `alias-removed`, `gate-set`, `archived` or `restored`.
        at: when it happened.
        by: who made the change.
        previous: version that the alias pointed at before.
        clauses: each comparison of the gate, with its result.
        forced: whether the gates were bypassed.
        cause: the attempt that requested the change.
    """

    revision: int
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
    """An alias of a model, the version it points at (None: only a gate is set), and its gate."""

    alias: str
    version: int | None = None
    since: float = 0.0
    by: str = ""
    reason: str = ""
    forced: bool = False
    gate: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an alias was not pointed at a version: the gate, and the result of each of its comparisons."""

    alias: str
    gate: str = ""
    clauses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a registered model. Immutable except for `aliases` and `archived`, which are as of the request.

    Attributes:
        model: name of the model.
        reference: `NAME:VERSION`.
        artifact: reference to the artifact as JSON: `sha256`, `size`, `format`, `python_type`, `unsafe` ….
        run_id: the run that produced it; `step`, `attempt` and `output` locate it in that run.
        code: digest of the step's code, if known.
        metrics: metrics that gates compare; `non_finite` are NaN and infinities, as text.
        experiment: whether a version of a pipeline registered it that was not published then; it is never the latest.
        created: False when the version existed already; only after `Models.register`.
        refused: why it did not get the alias it was registered for; only after `Models.register`.
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
    experiment: bool = False
    by: str = ""
    at: float = 0.0
    created: bool = False
    refused: Refusal | None = None
    registry: Models | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        named = f" ({', '.join(self.aliases)})" if self.aliases else ""
        return f"ModelVersion({self.model}:{self.version}{named})"

    @property
    def sha256(self) -> str:
        """Digest of the artifact."""
        return str(self.artifact["sha256"])

    @property
    def size(self) -> int:
        """Size of the artifact in bytes; of a folder, of all its files."""
        return int(self.artifact.get("total") or self.artifact["size"])

    @property
    def format(self) -> str:
        """Format of the artifact, such as `pickle`, `skops`, `safetensors`, `folder`."""
        return str(self.artifact["format"])

    @property
    def unsafe(self) -> bool:
        """Whether loading it can run code."""
        return bool(self.artifact.get("unsafe"))

    def load(self, *, unsafe: bool = True) -> Any:
        """Return the model as a Python object.

        Pickles are loaded in this process: use it only on models whose code you trust.

        Args:
            unsafe: False rejects formats whose loading can run code.

        Raises:
            UnsafeFormatError: `unsafe` is False and the format can run code.
            NotFoundError: the artifact is no longer in the store.
        """
        # The serializers are imported only by clients that load.
        from penstock.client.artifacts import result_reader

        cache = self._registry().artifacts.reader().cache
        return result_reader.load_value(self._value, cache, f"model {self.reference}", unsafe=unsafe)

    def download(self, to: str | Path = ".") -> Path:
        """Write the artifact into the folder `to`, or as the file or folder `to`; return its path. Loads nothing."""
        from penstock.client.artifacts import result_reader

        cache = self._registry().artifacts.reader().cache
        return result_reader.download_value(self._value, cache, Path(to), f"{self.model}-{self.version}")

    def lineage(self) -> Lineage:
        """Return the attempts that produced the model and those that used it, nearest first."""
        return self._registry().artifacts.lineage(self.sha256)

    def history(self) -> list[HistoryEntry]:
        """Return the changes of this version, oldest first; `Models.history` has those of the whole model."""
        entries = self._registry().history(self.model)
        return [entry for entry in entries if self.version in (entry.version, entry.previous)]

    @property
    def _value(self) -> dict[str, Any]:
        return {"artifact": self.artifact}

    def _registry(self) -> Models:
        if self.registry is None:
            raise ValueError(f"{self!r} has no connection: get it with `Client().models.get({self.reference!r})`")
        return self.registry


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A registered model.

    Attributes:
        versions: number of versions.
        latest: the newest published version that is not archived, or None.
        experiments: number of versions from experiments that are not archived.
    """

    name: str
    versions: int = 0
    latest: int | None = None
    experiments: int = 0
    aliases: dict[str, int] = field(default_factory=dict[str, int])
    changed_at: float = 0.0


class Models:
    """`Client.models`: register models, read their versions, move aliases, set gates.

    `by` is who makes a change; default the user of this process. `reason` is recorded in the history of the model.
    """

    def __init__(self, transport: Transport, artifacts: Artifacts) -> None:
        self._transport = transport
        self.artifacts = artifacts

    def get(self, reference: str) -> ModelVersion:
        """Return a version of a model: `churn`, `churn@champion` (by alias) or `churn:3` (by number).

        `churn` is the latest published version; those that experiments registered have only a number and aliases.

        Raises:
            InvalidIdError: the text is no reference.
            NotFoundError: there is no such model, version or alias, or no version is published.
        """
        wanted = references.parse(reference)
        which = f"aliases/{wanted.alias}" if wanted.alias else f"versions/{wanted.version or 'latest'}"
        return self._version(self._transport.json("GET", f"{_path(wanted.model)}/{which}"))

    def versions(self, name: str) -> list[ModelVersion]:
        """Return all versions of a model, newest first, including archived ones.

        Raises:
            NotFoundError: there is no such model.
        """
        return [self._version(row) for row in self._transport.json("GET", _path(name))["versions"]]

    def aliases(self, name: str) -> list[Alias]:
        """Return the aliases of a model by name, with their gates.

        Raises:
            NotFoundError: there is no such model.
        """
        return [views.build(Alias, row) for row in self._transport.json("GET", _path(name))["aliases"]]

    def history(self, name: str) -> list[HistoryEntry]:
        """Return all changes of a model, oldest first.

        Raises:
            NotFoundError: there is no such model.
        """
        rows = self._transport.json("GET", f"{_path(name)}/history")["history"]
        return [views.build(HistoryEntry, row, clauses=tuple(row.get("clauses") or ())) for row in rows]

    def register(
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
    ) -> ModelVersion:
        """Register an output, or a logged artifact, of a succeeded step as a version of a model.

        Idempotent: the same output of the same attempt returns the existing version. Inside a step use
        `context().register_model(name, model)`.

        Args:
            name: name of the model.
            run_id: the run.
            step: key of the step.
            output: name of its output or artifact.
            metrics: metrics that gates compare; default those that the step logged.
            alias: alias to point at the version if it passes the gates; otherwise `refused` of the result says why.
            gate: an expression the version must satisfy to get the alias, in addition to the gate of the alias.
            force: bypass the gates; requires `reason`.
            reason: why the version should get the alias.
            description: free text.
            tags: texts by name.

        Raises:
            NotFoundError: there is no such run, step or output, or its artifact is not in the store.
            RefusedError: the output is no artifact, or a field is not valid.
            TypeError: a metric is no number.
            ValueError: a metric is NaN or infinite.
        """
        where = f"register({name!r})"
        numbers = None
        if metrics is not None:
            finite, non_finite = finite_metrics(where, metrics)
            if non_finite:
                metric, text = next(iter(non_finite.items()))
                raise ValueError(f"{where}: metric {metric!r} is {text}, expected a finite number")
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
        }
        answer = self._transport.json("POST", f"{_path(name)}/versions", body=body)
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
    ) -> Alias:
        """Point an alias at a version. Idempotent.

        Args:
            name: name of the model.
            version: number of the version.
            alias: such as `champion`.
            reason: why, for people.
            gate: an expression the version must satisfy, such as `accuracy > champion.accuracy + 0.01`, in addition
                to the gate of the alias.
            force: bypass the gates; requires `reason`, which is recorded in the history.
            replaces: the version that the alias must point at now, 0 for none; otherwise the request is rejected.

        Raises:
            NotFoundError: there is no such model or version.
            RefusedError: a gate fails (the error has each comparison with its numbers), the version is archived, or the
                alias does not point at `replaces`.
        """
        body = {
            "version": version,
            "reason": reason,
            "gate": gate,
            "force": force,
            "replaces": replaces,
        }
        answer = self._transport.json("PUT", f"{_path(name)}/aliases/{check_alias(alias)}", body=body)
        return views.build(Alias, answer["alias"])

    def delete_alias(self, name: str, alias: str, *, reason: str = "") -> None:
        """Delete an alias. Its history is kept.

        Raises:
            NotFoundError: there is no such model or alias.
        """
        query = {"reason": reason or None}
        self._transport.json("DELETE", f"{_path(name)}/aliases/{check_alias(alias)}", query=query)

    def set_gate(self, name: str, alias: str, gate: str, *, reason: str = "") -> None:
        """Set the gate that every move of an alias must pass; an empty text deletes it.

        Raises:
            RefusedError: the gate is not a valid expression; the error names the position.
        """
        body = {"gate": gate, "reason": reason}
        self._transport.json("PUT", f"{_path(name)}/gates/{check_alias(alias)}", body=body)

    def archive(self, name: str, version: int, *, reason: str = "") -> ModelVersion:
        """Archive a version: it can get no alias and is never the latest. Its artifact and history are kept.

        Raises:
            NotFoundError: there is no such version.
            RefusedError: an alias points at it.
        """
        return self._set_archived(name, version, True, reason)

    def unarchive(self, name: str, version: int, *, reason: str = "") -> ModelVersion:
        """Undo `archive`.

        Raises:
            NotFoundError: there is no such version.
        """
        return self._set_archived(name, version, False, reason)

    def list(self) -> list[RegisteredModel]:
        """Return all registered models, by name."""
        return [views.build(RegisteredModel, row) for row in self._transport.json("GET", "/v1/models")["models"]]

    def _set_archived(self, name: str, version: int, archived: bool, reason: str) -> ModelVersion:
        body = {"archived": archived, "reason": reason}
        return self._version(self._transport.json("POST", f"{_path(name)}/versions/{version}/archive", body=body))

    def _version(self, row: Mapping[str, Any], **more: Any) -> ModelVersion:
        aliases = tuple(row.get("aliases") or ())
        return views.build(ModelVersion, row, aliases=aliases, registry=self, **more)


def _path(name: str) -> str:
    return f"/v1/models/{ids.check_name(name, 'model')}"
