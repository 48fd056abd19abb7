"""What the gateway can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from penstock_servicekit.settings import ServiceSettings

GIB = 1024**3


class GatewaySettings(ServiceSettings):
    """Settings of the gateway."""

    host: str = Field(default="127.0.0.1", description="address to listen on; this machine only by default")
    port: int = Field(default=8765, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    token: SecretStr | None = Field(default=None, description="bearer token; by default the one in the file home/token")
    public_url: str = Field(
        default="", description="where people reach the gateway, for links; default as it is called"
    )
    links_secret: SecretStr = Field(
        default=SecretStr(""), description="secret that signs the links to questions; by default the token"
    )
    allowed_hosts: str = Field(
        default="", description="names that clients may call the gateway by, separated by commas"
    )
    max_blob: int = Field(default=16 * GIB, ge=1, description="largest artifact in bytes that can be put")
    gateway_runs: int = Field(default=256, ge=1, description="runs whose folded state is kept in memory")
    database_url: SecretStr | None = Field(
        default=None, description="postgresql://… for the list of runs; by default a file in the state folder"
    )
    openlineage_url: str | None = Field(
        default=None, description="OpenLineage service that is told of every run that is over, such as Marquez"
    )
    openlineage_key: SecretStr | None = Field(default=None, description="API key of that service")
    stream_timeout: float = Field(default=60.0, gt=0, description="seconds a client may read nothing of its stream")

    def database(self) -> str | Path:
        """Where the read model lies: a URL, or a file in the state folder."""
        url = self.database_url.get_secret_value().strip() if self.database_url else ""
        return url or self.home / "read-model.db"

    def host_names(self) -> list[str]:
        """The allowed names as a list."""
        return [name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip()]
