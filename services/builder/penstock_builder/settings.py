"""Settings of the builder."""

from __future__ import annotations

from penstock_servicekit.settings import ServiceSettings


class BuilderSettings(ServiceSettings):
    """Settings of the builder. Here the environment is the interpreter that the user runs; images come later."""
