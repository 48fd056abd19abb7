"""The client's views repeat the fields of the API's models, since the client cannot import pydantic: field by field."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import BaseModel

from penstock.client import (
    backfills,
    builds,
    dead_letters,
    deployments,
    events,
    limits,
    models,
    partitions,
    pipelines,
    questions,
    retention,
    secrets,
    tokens,
    views,
)
from penstock.client.artifacts import lineage
from penstock.client.runs import comparison, metrics
from penstock_contracts import access, api, event_types, previews, tracking, waits
from penstock_contracts import backfills as backfill_contracts
from penstock_contracts import builds as build_contracts
from penstock_contracts import dead_letters as dead_letter_contracts
from penstock_contracts import deployments as deployment_contracts
from penstock_contracts import limits as limit_contracts
from penstock_contracts import models as model_contracts
from penstock_contracts import retention as retention_contracts
from penstock_contracts import secrets as secret_contracts
from penstock_core.facts import CacheReport

VIEWS: list[tuple[type[Any], type[Any]]] = [
    (views.StepError, api.StepError),
    (views.Cache, CacheReport),
    (views.Checkpoint, api.CheckpointView),
    (views.FailedItem, api.FailedItem),
    (views.Progress, api.ProgressView),
    (views.WaitsFor, waits.WaitView),
    (views.Step, api.StepView),
    (views.Item, api.ItemView),
    (views.StepDetail, api.StepDetail),
    (views.Attempt, api.AttemptView),
    (views.RegisteredByRun, api.RegisteredByRun),
    (views.Run, api.RunView),
    (views.Resumed, api.Resumed),
    (views.StepReason, api.StepReason),
    (views.Reasons, api.RunReasons),
    (views.Preview, previews.Preview),
    (comparison.ComparisonRow, tracking.Difference),
    (comparison.Comparison, tracking.Comparison),
    (events.EventReceipt, waits.EventAccepted),
    (events.EventType, event_types.EventType),
    (lineage.NamedArtifact, api.ArtifactUse),
    (lineage.LineageAttempt, api.LineageStep),
    (lineage.Lineage, api.Lineage),
    (limits.SlotHolder, limit_contracts.SlotWaiter),
    (dead_letters.DeadLetter, dead_letter_contracts.DeadLetterView),
    (limits.Limit, limit_contracts.LimitView),
    (metrics.Series, tracking.SeriesView),
    (models.HistoryEntry, model_contracts.HistoryEntry),
    (models.Alias, model_contracts.AliasView),
    (models.Refusal, model_contracts.Refusal),
    (models.ModelVersion, model_contracts.ModelVersionView),
    (models.RegisteredModel, model_contracts.ModelSummary),
    (pipelines.Version, api.VersionSummary),
    (questions.Question, waits.Question),
    (questions.Answer, waits.AnswerAccepted),
    (questions.AnswerLinks, waits.AnswerLinks),
    (retention.RetentionPolicy, retention_contracts.PolicyView),
    (retention.RetentionSettings, retention_contracts.RetentionSettings),
    (retention.JanitorReport, retention_contracts.JanitorReport),
    (deployments.Deployment, deployment_contracts.DeploymentView),
    (deployments.Revision, deployment_contracts.RevisionView),
    (deployments.Decision, deployment_contracts.DecisionView),
    (deployments.Clause, deployment_contracts.ClauseView),
    (deployments.ReplayedDecision, deployment_contracts.ReplayedDecision),
    (deployments.ReplayedRun, deployment_contracts.ReplayedRun),
    (deployments.Replay, deployment_contracts.ReplayView),
    (partitions.Partition, backfill_contracts.PartitionView),
    (builds.Build, build_contracts.BuildView),
    (backfills.Backfill, backfill_contracts.BackfillView),
    (backfills.BackfillItem, backfill_contracts.BackfillItem),
    (events.Event, deployment_contracts.EventView),
    (secrets.Secret, secret_contracts.SecretView),
    (secrets.SecretVersion, secret_contracts.SecretVersionView),
    (secrets.KeyRotation, secret_contracts.KeyRotation),
    (tokens.Token, access.TokenCreated),
    (tokens.Principal, access.WhoAmI),
]

ADDED: dict[str, set[str]] = {
    "Step": {"key"},
    "Item": {"key"},
    "Run": {"created", "resumed", "warnings"},
    "EventType": {"schema"},
    "ComparisonRow": {"has"},
    "ModelVersion": {"created", "refused", "registry"},
    "Version": {"created", "definition", "environments", "own_environment"},
}
"""Fields that the client fills from elsewhere: a key of a mapping, another response, itself."""

OMITTED: dict[str, set[str]] = {
    "EventReceipt": {"at"},
    "EventType": {"json_schema"},
    "Answer": {"attempt"},
    "AnswerLinks": {"attempt"},
}
"""Fields that the client does not show."""


def _fields(model: type[Any]) -> set[str]:
    if issubclass(model, BaseModel):
        return set(model.model_fields)
    return {field.name for field in dataclasses.fields(model)}


@pytest.mark.parametrize(("view", "model"), VIEWS, ids=lambda kind: kind.__name__)
def test_client_views_have_the_fields_of_their_api_models(view: type[Any], model: type[Any]) -> None:
    fields = {field.name for field in dataclasses.fields(view)}
    expected = _fields(model) | ADDED.get(view.__name__, set())
    assert fields == expected - OMITTED.get(view.__name__, set())
