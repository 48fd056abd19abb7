"""Messages on NATS as AsyncAPI 3.0: channels (subjects), payloads, senders and receivers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pydantic

from penstock_contracts import commands, fact_codec, model_fact_codec, previews, retention, subjects
from penstock_core import ids, trace_context
from penstock_core.facts import Outcome, RunFinished
from penstock_core.registry.facts import MODEL_FACTS, AliasRemoved, ModelFact
from penstock_gateway.describe import schemas
from penstock_gateway.describe.fact_channels import FACTS, FactChannel

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Request:
    """A request with one reply."""

    subject: str
    request: type[pydantic.BaseModel] | None
    reply: type[pydantic.BaseModel]
    server: str
    clients: tuple[str, ...]
    text: str


REQUESTS = (
    _Request(
        subjects.BUILDER_REGISTER,
        commands.RegisterVersion,
        commands.VersionReply,
        "builder",
        ("gateway",),
        "Register a version of a pipeline.",
    ),
    _Request(
        subjects.ARTIFACTS_STORE,
        None,
        commands.StoreInfo,
        "artifacts",
        ("gateway", "executor"),
        "Get the kind and the address of the artifact store.",
    ),
    _Request(
        subjects.ARTIFACTS_LOCATE,
        commands.Locate,
        commands.Location,
        "artifacts",
        ("gateway", "executor"),
        "Get a path or presigned URLs to read or write an object.",
    ),
    _Request(
        subjects.ARTIFACTS_COMPLETE,
        commands.Complete,
        commands.Location,
        "artifacts",
        ("executor",),
        "Complete or abort an upload in parts.",
    ),
    _Request(
        subjects.ARTIFACTS_STAT,
        commands.Locate,
        commands.Location,
        "artifacts",
        ("gateway",),
        "Get the size of an object.",
    ),
    _Request(
        subjects.ARTIFACTS_PREVIEW,
        previews.MakePreview,
        previews.PreviewReply,
        "artifacts",
        ("gateway",),
        "Make a preview of an object.",
    ),
    _Request(
        subjects.ARTIFACTS_JOB,
        retention.JanitorJob,
        retention.JanitorReply,
        "artifacts",
        ("gateway",),
        "Start a job of the janitor; its report is stored in the bucket penstock_retention.",
    ),
    _Request(
        subjects.ARTIFACTS_DELETE_RUN,
        retention.DeleteRun,
        retention.DeleteReply,
        "artifacts",
        ("gateway",),
        "Delete a finished run.",
    ),
    _Request(
        subjects.SCHEDULER_REPLICAS,
        None,
        commands.Replicas,
        "scheduler",
        ("gateway",),
        "List running replicas and their shards.",
    ),
)


@dataclass(frozen=True, slots=True)
class _Message:
    """A message of another stream."""

    address: str
    model: type[pydantic.BaseModel]
    senders: tuple[str, ...]
    receivers: tuple[str, ...]


MESSAGES = (
    _Message("logs.{run_id}.{key}.{attempt}", commands.AttemptOutput, ("executor",), ("gateway",)),
    _Message("logs.{run_id}.{key}.{attempt}.progress", commands.AttemptProgress, ("executor",), ("gateway",)),
    _Message("metrics.{run_id}.{key}.{attempt}", commands.Measurements, ("executor", "gateway"), ("gateway",)),
    _Message("builds.{project}.{pipeline}.registered", commands.Version, ("builder",), ()),
    _Message("ticks.{project}.{deployment}.{trigger}", commands.Tick, ("cron",), ("cron",)),
    _Message("replicas.{service}", commands.Replica, ("scheduler",), ("scheduler",)),
    _Message("parked.{service}", commands.Parked, ("scheduler", "executor", "cron"), ()),
)

_PARAMETERS: dict[str, Json] = {
    "shard": {
        "description": "CRC-32 of the run id modulo 16, as two digits.",
        "enum": [f"{number:02d}" for number in range(ids.SHARDS)] + [ids.RECORDED_SHARD],
    },
    "run_id": {"description": "The run.", "location": "$message.payload#/run_id"},
    "key": {"description": "Key of the step in the run.", "location": "$message.payload#/key"},
    "attempt": {"description": "Number of the attempt, from 1.", "location": "$message.payload#/attempt"},
    "pool": {"description": "Pool whose executors run the attempt.", "location": "$message.payload#/pool"},
    "milliseconds": {"description": "Unix time in milliseconds."},
    "name": {"description": "Name of the artifact.", "location": "$message.payload#/name"},
    "project": {"description": "The project."},
    "pipeline": {"description": "The pipeline."},
    "model": {"description": "The model.", "location": "$message.payload#/model"},
    "revision": {"description": "Index in the model's log, from 1.", "location": "$message.payload#/revision"},
    "type": {"description": "Type of the event.", "location": "$message.payload#/type"},
    "deployment": {"description": "Name of the deployment.", "location": "$message.payload#/deployment"},
    "trigger": {"description": "Name of the trigger.", "location": "$message.payload#/trigger"},
    "service": {"description": "The sending service."},
}

_SERVICES = {
    "gateway": "The HTTP API.",
    "scheduler": "Decides the next steps of each run.",
    "executor": "Runs attempts.",
    "builder": "Registers pipeline versions.",
    "artifacts": "Grants access to the artifact store.",
    "cron": "Publishes an event for each tick of a cron trigger.",
    "triggers": "Matches events with deployments, and starts their runs.",
}


def document(version: str) -> Json:
    """Return the whole document."""
    made = _Document()
    for channel in FACTS:
        made.fact(channel)
    made.model_facts()
    for message in MESSAGES:
        made.message(message)
    for request in REQUESTS:
        made.request(request)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Penstock",
            "version": version,
            "description": (
                "Facts of runs on the stream RUNS, append-once: the first message on a subject counts. Facts of "
                "registered models on the stream MODELS, likewise. Output of steps, timers, and requests between "
                "services."
            ),
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": name, "description": text} for name, text in _SERVICES.items()],
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {
                "host": "127.0.0.1:{port}",
                "protocol": "nats",
                "description": "NATS with JetStream, 2.12 or newer.",
                "variables": {"port": {"description": "Port of the server.", "default": "4222"}},
            }
        },
        "channels": made.channels,
        "operations": made.operations,
        "components": {
            "messages": made.messages,
            "parameters": _PARAMETERS,
            "messageTraits": {
                "cloudEvent": {"headers": _cloud_event_headers()},
                "modelEvent": {"headers": _model_event_headers()},
            },
        },
    }


class _Document:
    """Collects the parts of the document."""

    def __init__(self) -> None:
        self.channels: dict[str, Json] = {}
        self.operations: dict[str, Json] = {}
        self.messages: dict[str, Json] = {}

    def fact(self, channel: FactChannel) -> None:
        """Add a fact of a run."""
        name = _camel(channel.fact.__name__)
        self.messages[name] = {
            "name": channel.fact.ce_type,
            "title": channel.fact.__name__,
            "summary": _summary(channel.fact),
            "contentType": "application/json",
            "traits": [{"$ref": "#/components/messageTraits/cloudEvent"}],
            "payload": {"$ref": f"./events/{schemas.event_file(channel.fact)}"},
        }
        address = f"runs.{{shard}}.{{run_id}}.{channel.tail}"
        rule = "Append-once. " if channel.fact.append_once else ""
        self._channel(name, address, [name], rule + _summary(channel.fact))
        self._parties(name, channel.senders, channel.receivers)

    def model_facts(self) -> None:
        """Add the facts of registered models: all kinds share one subject; their type distinguishes them."""
        names: list[str] = []
        for fact in MODEL_FACTS:
            name = _camel(fact.__name__)
            names.append(name)
            self.messages[name] = {
                "name": fact.ce_type,
                "title": fact.__name__,
                "summary": _summary(fact),
                "contentType": "application/json",
                "traits": [{"$ref": "#/components/messageTraits/modelEvent"}],
                "payload": {"$ref": f"./events/{schemas.event_file(fact)}"},
            }
        text = "Append-once. A change of a registered model; the type says which."
        self._channel("modelFacts", "models.{project}.{model}.{revision}", names, text)
        for who, action in (("scheduler", "send"), ("gateway", "send"), ("gateway", "receive")):
            operation = self._operation(who, action, "modelFacts", names[0])
            operation["messages"] = [_message("modelFacts", name) for name in names]

    def message(self, message: _Message) -> None:
        """Add a message of another stream."""
        name = self._model(message.model)
        self._channel(name, message.address, [name], _summary(message.model))
        self._parties(name, message.senders, message.receivers)

    def request(self, request: _Request) -> None:
        """Add a request and its reply, each with its own channel: the reply goes to the reply subject."""
        name = _camel(request.subject.removeprefix("commands.").replace(".", "_"))
        sent = self._model(request.request) if request.request else self._nothing()
        reply = f"{name}Reply"
        self._channel(name, request.subject, [sent], request.text)
        answer = self._model(request.reply)
        self._channel(reply, None, [answer], f"Reply to {request.subject}, on the reply subject of the request.")
        back = {"channel": {"$ref": f"#/channels/{reply}"}, "messages": [_message(reply, answer)]}
        for who, action in [(request.server, "receive"), *((client, "send") for client in request.clients)]:
            self._operation(who, action, name, sent)["reply"] = back

    def _nothing(self) -> str:
        self.messages["nothing"] = {
            "title": "Empty",
            "summary": "An empty JSON object.",
            "payload": {"type": "object"},
        }
        return "nothing"

    def _model(self, model: type[pydantic.BaseModel]) -> str:
        name = _camel(model.__name__)
        self.messages[name] = {
            "name": model.__name__,
            "title": model.__name__,
            "summary": _summary(model),
            "contentType": "application/json",
            "payload": {"$ref": f"./commands/{schemas.command_file(model)}"},
        }
        return name

    def _channel(self, name: str, address: str | None, messages: list[str], text: str) -> None:
        channel: Json = {"address": address, "description": text}
        found = re.findall(r"\{(\w+)\}", address or "")
        if found:
            channel["parameters"] = {one: {"$ref": f"#/components/parameters/{one}"} for one in found}
        channel["messages"] = {message: {"$ref": f"#/components/messages/{message}"} for message in messages}
        self.channels[name] = channel

    def _parties(self, channel: str, senders: tuple[str, ...], receivers: tuple[str, ...]) -> None:
        for who in senders:
            self._operation(who, "send", channel, channel)
        for who in receivers:
            self._operation(who, "receive", channel, channel)

    def _operation(self, who: str, action: str, channel: str, message: str) -> Json:
        verb = {"send": "Sends", "receive": "Receives"}[action]
        operation: Json = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [_message(channel, message)],
            "tags": [{"name": who}],
        }
        self.operations[f"{who}{verb}{channel[0].upper()}{channel[1:]}"] = operation
        return operation


def _message(channel: str, message: str) -> Json:
    return {"$ref": f"#/channels/{channel}/messages/{message}"}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    joined = head + "".join(part.capitalize() for part in rest)
    return joined[0].lower() + joined[1:]


def _summary(kind: type) -> str:
    return (kind.__doc__ or "").strip().partition("\n")[0]


def _cloud_event_headers() -> Json:
    """CloudEvents 1.0, NATS binding: attributes as headers with the prefix `ce-`."""
    sample = RunFinished(run_id="r", outcome=Outcome.SUCCEEDED)
    described = _headers(
        list(fact_codec.headers(sample, "source")), "Derived from the subject: the same fact has the same ID."
    )
    trace = {"type": "string", "description": "W3C Trace Context, of requests of runs and attempts."}
    described["properties"][trace_context.TRACEPARENT] = trace
    return described


def _model_event_headers() -> Json:
    sample: ModelFact = AliasRemoved(project="p", model="m", revision=1, alias="a", previous=1)
    names = list(model_fact_codec.headers(sample, "source"))
    return _headers(names, "Derived from the subject: the same fact has the same ID.", "The project and model.")


def _headers(names: list[str], ident: str, subject: str = "The run.") -> Json:
    texts = {
        "ce-specversion": "Always 1.0.",
        "ce-id": ident,
        "ce-type": "Kind and version, such as penstock.run.finished.v1.",
        "ce-source": "The service and replica that wrote it.",
        "ce-subject": subject,
        "content-type": "Always application/json.",
    }
    fixed = {"ce-specversion": "1.0", "content-type": "application/json"}
    properties = {
        name: {"type": "string", "description": texts[name]} | ({"const": fixed[name]} if name in fixed else {})
        for name in names
    }
    return {"type": "object", "required": names, "properties": properties}
