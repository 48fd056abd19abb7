"""What goes over NATS as AsyncAPI 3.0: channels (subjects), messages and who sends and receives them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pydantic

from penstock_contracts import commands, fact_codec, model_fact_codec, previews, retention, subjects
from penstock_core import ids
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
        "Ask how the store is reached.",
    ),
    _Request(
        subjects.ARTIFACTS_LOCATE,
        commands.Locate,
        commands.Location,
        "artifacts",
        ("gateway", "executor"),
        "Ask where an object's bytes may be got or put.",
    ),
    _Request(
        subjects.ARTIFACTS_COMPLETE,
        commands.Complete,
        commands.Location,
        "artifacts",
        ("executor",),
        "Make an object visible whose parts were put, or give them up.",
    ),
    _Request(
        subjects.ARTIFACTS_STAT,
        commands.Locate,
        commands.Location,
        "artifacts",
        ("gateway",),
        "Ask for an object's size.",
    ),
    _Request(
        subjects.ARTIFACTS_PREVIEW,
        previews.MakePreview,
        previews.PreviewReply,
        "artifacts",
        ("gateway",),
        "Ask what an object looks like.",
    ),
    _Request(
        subjects.ARTIFACTS_JOB,
        retention.JanitorJob,
        retention.JanitorReply,
        "artifacts",
        ("gateway",),
        "Have the janitor collect, archive or restore; its report comes in the bucket penstock_retention.",
    ),
    _Request(
        subjects.ARTIFACTS_DELETE_RUN,
        retention.DeleteRun,
        retention.DeleteReply,
        "artifacts",
        ("gateway",),
        "Delete a run that is over.",
    ),
    _Request(
        subjects.GATEWAY_EVENT,
        commands.Event,
        commands.EventReply,
        "gateway",
        (),
        "Send an event to the steps that wait for it.",
    ),
    _Request(
        subjects.SCHEDULER_REPLICAS,
        None,
        commands.Replicas,
        "scheduler",
        ("gateway",),
        "Ask which replicas live and which shards they hold.",
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
    _Message("metrics.{run_id}.{key}.{attempt}", commands.Measurements, ("executor", "gateway"), ("gateway",)),
    _Message("builds.{project}.{pipeline}.registered", commands.Version, ("builder",), ()),
    _Message("ticks.{schedule}", commands.Tick, ("cron",), ("cron",)),
    _Message("replicas.{service}", commands.Replica, ("scheduler",), ("scheduler",)),
    _Message("triggers.{project}.{type}", commands.Event, ("gateway",), ()),
    _Message("parked.{service}", commands.Parked, ("scheduler", "executor", "cron"), ()),
)

_PARAMETERS: dict[str, Json] = {
    "shard": {
        "description": "CRC-32 of the run id modulo 16, as two digits.",
        "enum": [f"{number:02d}" for number in range(ids.SHARDS)],
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
    "schedule": {"description": "Name of the schedule.", "location": "$message.payload#/schedule"},
    "service": {"description": "The service that sends."},
}

_SERVICES = {
    "gateway": "The HTTP API.",
    "scheduler": "Decides what comes next in each run.",
    "executor": "Runs attempts.",
    "builder": "Registers pipeline versions.",
    "artifacts": "Grants places to put and get artifacts.",
    "cron": "Starts runs by the clock.",
}


def document(version: str) -> Json:
    """The whole document."""
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
                "The facts of runs on the stream RUNS, append-once: the first message on a subject is the one that "
                "happened. The facts of registered models on the stream MODELS, in the same way. Beside them output of "
                "steps, timers, and requests between services."
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
    """Gathers the parts of the document."""

    def __init__(self) -> None:
        self.channels: dict[str, Json] = {}
        self.operations: dict[str, Json] = {}
        self.messages: dict[str, Json] = {}

    def fact(self, channel: FactChannel) -> None:
        """A fact of a run."""
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
        """The facts of registered models: all kinds on one numbered subject, told apart by their type."""
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
        text = "Append-once. What happened to a model; the type says which kind it is."
        self._channel("modelFacts", "models.{project}.{model}.{revision}", names, text)
        for who, action in (("scheduler", "send"), ("gateway", "send"), ("gateway", "receive")):
            operation = self._operation(who, action, "modelFacts", names[0])
            operation["messages"] = [_message("modelFacts", name) for name in names]

    def message(self, message: _Message) -> None:
        """A message of another stream."""
        name = self._model(message.model)
        self._channel(name, message.address, [name], _summary(message.model))
        self._parties(name, message.senders, message.receivers)

    def request(self, request: _Request) -> None:
        """A request and its reply, each with a channel of its own: the reply goes to the request's reply subject."""
        name = _camel(request.subject.removeprefix("commands.").replace(".", "_"))
        asked = self._model(request.request) if request.request else self._nothing()
        reply = f"{name}Reply"
        self._channel(name, request.subject, [asked], request.text)
        answer = self._model(request.reply)
        self._channel(reply, None, [answer], f"Reply to {request.subject}, on the reply subject of the request.")
        back = {"channel": {"$ref": f"#/channels/{reply}"}, "messages": [_message(reply, answer)]}
        for who, action in [(request.server, "receive"), *((client, "send") for client in request.clients)]:
            self._operation(who, action, name, asked)["reply"] = back

    def _nothing(self) -> str:
        self.messages["nothing"] = {
            "title": "Nothing",
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
    return _headers(
        list(fact_codec.headers(sample, "source")), "The fact's place in its run: the same fact, the same id."
    )


def _model_event_headers() -> Json:
    sample: ModelFact = AliasRemoved(project="p", model="m", revision=1, alias="a", previous=1)
    names = list(model_fact_codec.headers(sample, "source"))
    return _headers(names, "The fact's place in its model's log: the same fact, the same id.", "The project and model.")


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
    properties["traceparent"] = {"type": "string", "description": "W3C trace context, where there is one."}
    return {"type": "object", "required": names, "properties": properties}
