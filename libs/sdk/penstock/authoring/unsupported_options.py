"""Warnings about options of steps that this version does not support."""

from __future__ import annotations

from penstock_core.pipeline.ir import Pipeline


def unsupported_option_warnings(pipeline: Pipeline) -> list[str]:
    """Return one warning for each step with secrets, which have no effect yet."""
    found: list[str] = []
    for spec in pipeline.steps.values():
        if spec.secrets:
            where = f"{spec.file}:{spec.line}: " if spec.file and spec.line else ""
            found.append(f"{where}secrets of step {spec.name!r} has no effect in this version")
    return found
