"""Runs of plain scripts, which the script records and the gateway imports when it has ended.

Such a run has no registered version: its request has version 0. Its log holds a request, one attempt of one step and
their ends, all written at once: no scheduler decides about it, and no executor runs it.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock_core.pipeline.ir import Pipeline

VERSION = 0
"""Version of pipelines that are scripts."""

STEP = "script"
"""Key of the only step."""

POOL = "script"
"""Pool of its attempt, which has no executors."""

ENVIRONMENT = "environment"
"""Name of the artifact with the interpreter and packages of a script."""

SOURCE = "source"
"""Name of the artifact with the script's own file."""

ABOUT = frozenset({ENVIRONMENT, SOURCE})

TRIGGER = "script"
"""Type of the trigger."""

_KEPT = 60
_OTHER = re.compile(r"[^A-Za-z0-9_]+")


def pipeline(name: str) -> Pipeline:
    """Return the pipeline as which runs of scripts are shown."""
    # Scripts need only the constants of this module, and have to start quickly.
    from penstock_core.pipeline.ir import Node, Pipeline, Port, StepSpec

    spec = StepSpec(name=STEP, entrypoint="", outputs=(Port(name="result", type="Any"),), pool=POOL)
    return Pipeline(name=name, steps={STEP: spec}, nodes=(Node(key=STEP, step=STEP),))


def pipeline_name(given: str) -> str:
    """Return the pipeline name of an experiment called `given`: its words, joined by dashes.

    A part of its digest distinguishes names of which characters are dropped, such as letters of other scripts.
    """
    words = [word for word in _OTHER.sub("-", given).split("-") if word]
    name = "-".join(words)[:_KEPT].rstrip("-")
    kept = " ".join(words) == " ".join(given.replace("-", " ").split())
    if name and kept and len(name) == len("-".join(words)):
        return name
    return f"{name or STEP}-{hashlib.sha256(given.encode(errors='replace')).hexdigest()[:8]}"
