"""Settings of the artifacts service."""

from __future__ import annotations

from pydantic import Field, SecretStr

from penstock_adapters.s3 import S3Options
from penstock_servicekit.settings import ServiceSettings


class ArtifactsSettings(ServiceSettings):
    """Settings of the artifacts service, the only one with the address and credentials of the store."""

    artifacts_url: str = Field(
        default="",
        description="artifact store: empty for a folder in the state folder, folder:/path, or s3://bucket/prefix",
    )
    s3_endpoint: str | None = Field(default=None, description="URL of an S3-compatible service other than AWS")
    s3_region: str | None = Field(default=None, description="region of the bucket")
    s3_access_key: SecretStr | None = Field(default=None, description="access key; by default the role of the machine")
    s3_secret_key: SecretStr | None = Field(default=None, description="secret key of the access key")
    artifact_limit: int | None = Field(default=None, ge=1, description="largest artifact in bytes")
    preview_seconds: int = Field(default=10, ge=1, le=600, description="seconds of CPU time per preview")
    preview_memory: int = Field(default=512 * 1024 * 1024, ge=1 << 24, description="bytes of memory per preview")
    preview_fetch: int = Field(
        default=256 * 1024 * 1024, ge=0, description="largest artifact in bytes that is fetched from S3 for a preview"
    )
    preview_room: int = Field(default=256 * 1024 * 1024, ge=0, description="bytes of disk for cached previews")
    janitor_interval: float = Field(
        default=3600.0, ge=0, description="seconds between rounds of retention and collection; 0: on request only"
    )
    janitor_first: float = Field(default=60.0, ge=0, description="seconds after the start until the first round")
    janitor_runs: int = Field(default=200, ge=1, description="most runs that one round archives, and deletes")
    gc_grace: float = Field(
        default=86400.0, ge=0, description="seconds that an artifact must be unreferenced before it is removed"
    )
    grant_seconds: float = Field(default=3600.0, gt=0, description="seconds until a presigned URL expires")

    def s3(self) -> S3Options:
        """Return how to reach the bucket; its name is in `artifacts_url`."""
        return S3Options(
            bucket="",
            endpoint=self.s3_endpoint or None,
            region=self.s3_region or None,
            access_key=self.s3_access_key.get_secret_value() if self.s3_access_key else None,
            secret_key=self.s3_secret_key.get_secret_value() if self.s3_secret_key else None,
        )
