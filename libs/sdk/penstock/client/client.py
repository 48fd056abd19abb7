"""The Python client of the platform, on which the `penstock` command is built.

    from penstock import Client

    client = Client()                                   # the platform of this folder, or $PENSTOCK_URL
    version = client.pipelines.register("examples/training")
    run = client.run(version, {"depth": 3}, wait=True)
    run.steps["train"].metrics
    model = client.artifacts.load(run.run_id, "select")

Standard library only. Requests are idempotent and are repeated when a connection breaks: a request for a run always
carries an idempotency key, so it creates one run however often it is sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack
from urllib.parse import quote

from penstock.client import project as projects
from penstock.client.artifacts.artifacts import Artifacts
from penstock.client.http.transport import Transport
from penstock.client.pipelines import Pipelines, Version
from penstock.client.platform import Address, locator, state_folder
from penstock.client.retention import Retention
from penstock.client.runs.requests import SubmitOptions
from penstock.client.runs.runs import Runs
from penstock.client.views import Run, build

if TYPE_CHECKING:
    from penstock.authoring import Pipeline
    from penstock.client.audit import AuditEntry
    from penstock.client.backfills import Backfills
    from penstock.client.builds import Builds
    from penstock.client.dead_letters import DeadLetters
    from penstock.client.deployments import Deployments
    from penstock.client.endpoints import Endpoints
    from penstock.client.environments import Environments
    from penstock.client.events import Events
    from penstock.client.limits import Limits
    from penstock.client.models import Models
    from penstock.client.partitions import Partitions
    from penstock.client.projects import Projects
    from penstock.client.questions import Questions
    from penstock.client.secrets import Secrets
    from penstock.client.tokens import Principal, Tokens
    from penstock.client.trace import TraceNode


class Client:
    """A client of one platform.

    Args:
        url: URL of the platform; default `$PENSTOCK_URL`, else the platform that runs on the state folder.
        token: its token; default `$PENSTOCK_TOKEN`, else the state folder's.
        home: the state folder; default `$PENSTOCK_HOME`, else `.penstock`.
        timeout: seconds that one response, or silence on a stream, may take.
        project: name of the project; default: that of the run in whose step this is, `$PENSTOCK_PROJECT`, the line
            `project: NAME` of a `penstock.yaml` in the working folder, else `default`.
        patience: seconds to retry while a platform that answered before is unavailable.
        locate: returns the address of the platform; replaces `url`, `token` and `home`. The client retries while it
            raises `NoPlatformError`.

    Attributes:
        runs: submit, list, watch, cancel, rerun and compare runs.
        pipelines: register pipelines and read their versions.
        artifacts: outputs and artifacts of runs.
        events: events that start runs and that steps wait for.
        dead_letters: events that triggers rejected, and messages that could not be read.
        questions: questions that steps ask, and their answers.
        limits: concurrency limits.
        retention: retention policies and garbage collection.
        secrets: secrets by name, without their values.
        tokens: named access tokens.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        home: str | os.PathLike[str] | None = None,
        *,
        project: str | None = None,
        timeout: float = 30.0,
        patience: float = 60.0,
        locate: Callable[[], Address] | None = None,
    ) -> None:
        self.home = state_folder(home)
        where = locate or locator(url, token, home)
        named = projects.current(project)
        transport = Transport(where, timeout, patience, expected=locate is not None, project=named)
        self.transport = transport
        self.artifacts = Artifacts(transport, self.home)
        self.runs = Runs(transport, self.artifacts)
        self.pipelines = Pipelines(transport, self.artifacts)
        self.retention = Retention(transport)

    @property
    def project(self) -> str:
        """Name of the project."""
        return self.transport.project or projects.DEFAULT

    # These are imported when they are used: importing them takes longer than most requests.

    @cached_property
    def events(self) -> Events:
        """Events that start runs and that steps wait for."""
        from penstock.client.events import Events

        return Events(self.transport)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """Events that triggers rejected, and messages that could not be read."""
        from penstock.client.dead_letters import DeadLetters

        return DeadLetters(self.transport)

    @cached_property
    def questions(self) -> Questions:
        """Questions that steps ask, and their answers."""
        from penstock.client.questions import Questions

        return Questions(self.transport)

    @cached_property
    def limits(self) -> Limits:
        """Concurrency limits."""
        from penstock.client.limits import Limits

        return Limits(self.transport)

    @cached_property
    def secrets(self) -> Secrets:
        """Secrets by name, without their values."""
        from penstock.client.secrets import Secrets

        return Secrets(self.transport)

    @cached_property
    def tokens(self) -> Tokens:
        """Named access tokens."""
        from penstock.client.tokens import Tokens

        return Tokens(self.transport)

    @cached_property
    def deployments(self) -> Deployments:
        """What starts runs by itself."""
        from penstock.client.deployments import Deployments

        return Deployments(self.transport)

    @cached_property
    def partitions(self) -> Partitions:
        """Partitions of deployments, and their states."""
        from penstock.client.partitions import Partitions

        return Partitions(self.transport)

    @cached_property
    def backfills(self) -> Backfills:
        """Runs of many partitions, or of past ticks."""
        from penstock.client.backfills import Backfills

        return Backfills(self.transport)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Deployments that are called as functions."""
        from penstock.client.endpoints import Endpoints

        return Endpoints(self.transport, self.artifacts)

    @cached_property
    def environments(self) -> Environments:
        """Environments that pipelines declare."""
        from penstock.client.environments import Environments

        return Environments(self.transport)

    @cached_property
    def projects(self) -> Projects:
        """Projects and their quotas."""
        from penstock.client.projects import Projects

        return Projects(self.transport)

    @cached_property
    def builds(self) -> Builds:
        """Builds of versions from Git repositories, and of environments."""
        from penstock.client.builds import Builds

        return Builds(self.transport)

    @cached_property
    def models(self) -> Models:
        """Registered models, their versions, aliases and gates."""
        from penstock.client.models import Models

        return Models(self.transport, self.artifacts)

    def __repr__(self) -> str:
        return f"Client(home={str(self.home)!r})"

    def run(
        self,
        pipeline: Pipeline | Version | str,
        inputs: Mapping[str, Any] | None = None,
        *,
        wait: bool = False,
        **options: Unpack[SubmitOptions],
    ) -> Run:
        """Submit a run: `runs.submit` for a `Pipeline` object, a `Version` or the name of a registered pipeline.

        Args:
            pipeline: a registered pipeline's name, a `Version`, or a `Pipeline` object, which is registered
                first, as an experiment.
            inputs: values by parameter name; see `Runs.submit`.
            wait: return when the run has finished, with its steps.
            options: see `SubmitOptions`.

        Raises:
            RefusedError: the inputs do not fit, or there is no such pipeline or version.
        """
        if not isinstance(pipeline, str | Version):
            pipeline = self.pipelines.register(pipeline, publish=False)
        if isinstance(pipeline, Version):
            options["version"] = options.get("version") or pipeline.version
            pipeline = pipeline.pipeline
        run = self.runs.submit(pipeline, inputs, **options)
        return self.runs.wait(run.run_id) if wait else run

    def trace(self, which: str | int) -> TraceNode:
        """Return the first known cause of a run or an event, with everything that followed from it.

        Args:
            which: the id of a run, or the sequence or digest of an event.

        Raises:
            NotFoundError: it does not exist.
        """
        from penstock.client import trace

        return trace.node(self.transport.json("GET", f"/v1/trace/{quote(str(which), safe='')}")["root"])

    def audit(
        self,
        *,
        principal: str | None = None,
        operation: str | None = None,
        outcome: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int | None = None,
    ) -> Iterator[AuditEntry]:
        """Yield entries of the audit trail, newest first: refused requests, and those that may change something.

        Args:
            principal: only of this principal, such as `user:ada`.
            operation: only of this operation, such as `request_run`.
            outcome: only `allowed`, `refused` or `failed`.
            since: only from this time on, in Unix seconds.
            until: only up to this time.
            limit: maximum number of entries; None: all.

        Raises:
            UnauthorizedError: the principal of this client is no admin.
        """
        from penstock.client import audit

        return audit.entries(
            self.transport,
            principal=principal,
            operation=operation,
            outcome=outcome,
            since=since,
            until=until,
            limit=limit,
        )

    def whoami(self) -> Principal:
        """Return who acts with this client's token, as the platform records it."""
        from penstock.client.tokens import Principal

        return build(Principal, self.transport.json("GET", "/v1/whoami"))

    def platform_info(self) -> dict[str, Any]:
        """Return version, project and replicas of the platform, as JSON.

        Raises:
            NoPlatformError: no platform is running here.
        """
        return self.transport.json("GET", "/v1/platform") or {}
