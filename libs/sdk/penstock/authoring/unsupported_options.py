"""Warnings about options of steps that this version does not support."""

from __future__ import annotations

from penstock_core.pipeline.ir import Pipeline, StepSpec


def unsupported_option_warnings(pipeline: Pipeline) -> list[str]:
    """Return one warning for each step with options that have no effect."""
    found: list[str] = []
    for spec in pipeline.steps.values():
        names = _options(spec)
        if names:
            where = f"{spec.file}:{spec.line}: " if spec.file and spec.line else ""
            verb = "has" if len(names) == 1 else "have"
            found.append(f"{where}{', '.join(names)} of step {spec.name!r} {verb} no effect in this version")
    return found


def _options(spec: StepSpec) -> list[str]:
    asked = {
        "secrets": bool(spec.secrets),
    }
    return [name for name, wanted in asked.items() if wanted]
