"""Settings of the builder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from penstock_adapters.git.command import GitLimits
from penstock_servicekit.secret_sources import SecretSettings


class BuilderSettings(SecretSettings):
    """Settings of the builder."""

    install_environments: bool = Field(
        default=True, description="whether builders install declared environments, or resolve them only"
    )
    builds: int = Field(default=2, ge=1, le=100, description="environments that a builder builds at the same time")
    build_timeout: float = Field(default=1800.0, gt=0, description="seconds until a build is given up")
    images_repository: str = Field(
        default="",
        description="where images of declared environments are pushed, such as registry.example/team/environments; "
        "empty: none are built",
    )
    images_engine: Literal["buildkit", "docker"] = Field(
        default="buildkit", description="what builds images: BuildKit with buildctl, or a Docker-compatible engine"
    )
    images_address: str = Field(
        default="", description="address of buildkitd or of the engine; empty: the default of buildctl and docker"
    )
    images_base: str = Field(
        default="python:{python}-slim",
        description="image that environments are installed on, if they declare none; {python} is the minor version",
    )
    images_platforms: str = Field(
        default="", description="platforms of images, separated by commas, such as linux/amd64,linux/arm64"
    )
    images_insecure: bool = Field(default=False, description="whether the registry is reached by HTTP")
    images_cache: bool = Field(
        default=True, description="whether BuildKit keeps the cache of builds in the registry, with the tag buildcache"
    )
    images_provenance: bool = Field(
        default=True, description="whether images have an attestation of how BuildKit made them"
    )
    images_sbom: str = Field(
        default="", description="image of a scanner with which BuildKit attests the content (SBOM); empty: none"
    )
    version_builds: int = Field(
        default=2, ge=1, le=100, description="versions that a builder builds from Git repositories at the same time"
    )
    compile_timeout: float = Field(default=300.0, gt=0, description="seconds until the compilation of a pipeline fails")
    sandbox: Literal["auto", "required"] = Field(
        default="auto",
        description="whether pipelines of repositories are compiled without bubblewrap where it does not work (auto), "
        "or never (required)",
    )
    git_protocols: str = Field(
        default="https,ssh", description="protocols of Git repositories: https, ssh, http, git, file"
    )
    git_timeout: float = Field(default=600.0, gt=0, description="seconds until a fetch from a repository fails")
    git_size: int = Field(default=2 * 1024**3, ge=0, description="largest repository at one commit in bytes")
    git_cache_size: int = Field(
        default=10 * 1024**3,
        ge=0,
        description="bytes of fetched repositories; beyond it, those that were not used for longest are removed",
    )
    git_known_hosts: Path | None = Field(
        default=None, description="file with the keys of ssh servers; by default /etc/ssh/ssh_known_hosts"
    )

    def git_limits(self) -> GitLimits:
        """The limits of `git`."""
        return GitLimits(
            timeout=self.git_timeout,
            size=self.git_size,
            protocols=tuple(one.strip() for one in self.git_protocols.split(",") if one.strip()),
            known_hosts=str(self.git_known_hosts or ""),
        )
