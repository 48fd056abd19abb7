"""What the artifacts service can be told."""

from __future__ import annotations

from pydantic import Field, SecretStr

from penstock_adapters.s3 import S3Options
from penstock_servicekit.settings import ServiceSettings


class ArtifactsSettings(ServiceSettings):
    """Settings of the artifacts service: the only one that knows the store's address and credentials."""

    artifacts_url: str = Field(
        default="",
        description="where artifacts are kept: empty for a folder in the state folder, folder:/path, s3://bucket/prefix",
    )
    s3_endpoint: str | None = Field(default=None, description="address of an S3 service that is not Amazon's")
    s3_region: str | None = Field(default=None, description="region of the bucket")
    s3_access_key: SecretStr | None = Field(default=None, description="by default the machine's own role")
    s3_secret_key: SecretStr | None = Field(default=None, description="goes with the access key")
    artifact_limit: int | None = Field(default=None, ge=1, description="largest artifact in bytes")
    preview_seconds: int = Field(default=10, ge=1, le=600, description="processor time for making one preview")
    preview_memory: int = Field(
        default=512 * 1024 * 1024, ge=1 << 24, description="bytes of memory for making one preview"
    )
    preview_fetch: int = Field(
        default=256 * 1024 * 1024, ge=0, description="largest artifact in bytes that is fetched from S3 for a preview"
    )
    preview_room: int = Field(
        default=256 * 1024 * 1024, ge=0, description="bytes that previews which were made may take on disk"
    )
    janitor_interval: float = Field(
        default=3600.0, ge=0, description="seconds between two rounds of archiving and collecting; 0: only when asked"
    )
    janitor_first: float = Field(default=60.0, ge=0, description="seconds after the start until the first round")
    janitor_runs: int = Field(default=200, ge=1, description="most runs that are archived, and deleted, in a round")
    gc_grace: float = Field(
        default=86400.0, ge=0, description="seconds for which nothing must name an artifact before it is removed"
    )
    grant_seconds: float = Field(default=3600.0, gt=0, description="how long a granted address can be used")

    def s3(self) -> S3Options:
        """How the bucket is reached; its name is in `artifacts_url`."""
        return S3Options(
            bucket="",
            endpoint=self.s3_endpoint or None,
            region=self.s3_region or None,
            access_key=self.s3_access_key.get_secret_value() if self.s3_access_key else None,
            secret_key=self.s3_secret_key.get_secret_value() if self.s3_secret_key else None,
        )
