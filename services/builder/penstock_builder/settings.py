"""Settings of the builder."""

from __future__ import annotations

from pydantic import Field

from penstock_servicekit.settings import ServiceSettings


class BuilderSettings(ServiceSettings):
    """Settings of the builder."""

    install_environments: bool = Field(
        default=True, description="whether builders install declared environments, or resolve them only"
    )
    builds: int = Field(default=2, ge=1, le=100, description="environments that a builder builds at the same time")
    build_timeout: float = Field(default=1800.0, gt=0, description="seconds until a build is given up")
