"""Runs of plain scripts: recorded by the script itself, taken into the log when it is over.

Such a run has no registered version, so its request says version 0. Its log holds a request, one attempt of one step
and their ends, all of which are there at once: nobody decides anything about it, and no executor runs it.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock_core.pipeline.ir import Pipeline

VERSION = 0
"""Version of a pipeline that stands for scripts."""

STEP = "script"
"""Key of the only step."""

POOL = "script"
"""Pool of its attempt, which nothing works for."""

ENVIRONMENT = "environment"
"""Name under which a script keeps the interpreter and the packages that it ran with."""

SOURCE = "source"
"""Name under which a script keeps its own file."""

ABOUT = frozenset({ENVIRONMENT, SOURCE})

TRIGGER = "script"
"""Type of the trigger."""

_KEPT = 60
_OTHER = re.compile(r"[^A-Za-z0-9_]+")


def pipeline(name: str) -> Pipeline:
    """The pipeline that a run of scripts is shown as."""
    # Scripts need the names of this module only, and are to begin quickly.
    from penstock_core.pipeline.ir import Node, Pipeline, Port, StepSpec

    spec = StepSpec(name=STEP, entrypoint="", outputs=(Port(name="result", type="Any"),), pool=POOL)
    return Pipeline(name=name, steps={STEP: spec}, nodes=(Node(key=STEP, step=STEP),))


def pipeline_name(given: str) -> str:
    """The name of the pipeline for an experiment that people call `given`: its words, joined by dashes.

    What is left out of it, letters of other scripts for example, tells names apart by a part of their digest.
    """
    words = [word for word in _OTHER.sub("-", given).split("-") if word]
    name = "-".join(words)[:_KEPT].rstrip("-")
    kept = " ".join(words) == " ".join(given.replace("-", " ").split())
    if name and kept and len(name) == len("-".join(words)):
        return name
    return f"{name or STEP}-{hashlib.sha256(given.encode(errors='replace')).hexdigest()[:8]}"
