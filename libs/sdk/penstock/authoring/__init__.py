"""The authoring API: `@step`, `@pipeline` and their options.

`Pipeline.compile()` runs the body of the pipeline once with placeholders for values (`trace`), and returns the
intermediate representation that the platform runs. Every mistake is a `DefinitionError` with the user's file and line.
"""

from penstock.authoring.blocks import on_exit, on_failure, otherwise, when
from penstock.authoring.branch_join import one_of
from penstock.authoring.deployments import Cron, Endpoint, Late, On, Partitions, Webhook
from penstock.authoring.environments import Environment
from penstock.authoring.notify import Notify
from penstock.authoring.options import Batch, Cache, Resources
from penstock.authoring.pipelines import Pipeline, pipeline
from penstock.authoring.steps import Step, step
from penstock.authoring.waits import ask, run_pipeline, sleep, sleep_until, wait_for_event

__all__ = [
    "Batch",
    "Cache",
    "Cron",
    "Endpoint",
    "Environment",
    "Late",
    "Notify",
    "On",
    "Partitions",
    "Pipeline",
    "Resources",
    "Step",
    "Webhook",
    "ask",
    "on_exit",
    "on_failure",
    "one_of",
    "otherwise",
    "pipeline",
    "run_pipeline",
    "sleep",
    "sleep_until",
    "step",
    "wait_for_event",
    "when",
]
