"""Settings of the gateway."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from penstock_servicekit.secret_sources import SecretSettings

GIB = 1024**3


class GatewaySettings(SecretSettings):
    """Settings of the gateway."""

    host: str = Field(default="127.0.0.1", description="address to listen on; this machine only by default")
    port: int = Field(default=8765, ge=0, le=65535, description="port to listen on; 0 chooses a free one")
    token: SecretStr | None = Field(default=None, description="bearer token; by default the one in the file home/token")
    nats_issuer_seed: SecretStr | None = Field(
        default=None,
        description="seed of the key by which gateways admit publishers and runners to NATS, see `penstock admin "
        "nats-config`",
    )
    otlp_endpoint: str = Field(
        default="",
        description="URL of an OpenTelemetry collector that receives traces of runs by OTLP over HTTP, such as "
        "http://collector:4318; empty: none are exported",
    )
    public_url: str = Field(
        default="",
        description="URL at which people reach the gateway, used in links; by default that of the request",
    )
    oidc_issuer: str = Field(default="", description="URL of the OpenID Connect provider of the users; by default none")
    oidc_client_id: str = Field(default="", description="ID of the provider's client for `penstock login`")
    oidc_audience: str = Field(
        default="",
        description="audience of access tokens for this platform; by default ID tokens of the client are used",
    )
    oidc_scopes: str = Field(
        default="openid profile email offline_access", description="scopes that `penstock login` requests"
    )
    oidc_username_claim: str = Field(default="sub", description="claim with the name of a user, who cannot change it")
    oidc_groups_claim: str = Field(default="groups", description="claim with the groups of a user")
    oidc_roles: dict[str, str] = Field(
        default={},
        description='roles by group, as JSON: `{"ml-team": "editor", "guests": "viewer@demo"}`; `@PROJECT` limits one',
    )
    links_secret: SecretStr = Field(
        default=SecretStr(""), description="secret that signs the links to questions; by default the token"
    )
    allowed_hosts: str = Field(
        default="", description="host names by which clients may call the gateway, separated by commas"
    )
    max_blob: int = Field(default=16 * GIB, ge=1, description="largest artifact in bytes that can be uploaded")
    artifacts_via_gateway: bool = Field(
        default=False,
        description="whether the bytes of artifacts in S3 pass through the gateway, for clients that cannot reach S3",
    )
    gateway_runs: int = Field(default=256, ge=1, description="runs whose state is cached in memory")
    database_url: SecretStr | None = Field(
        default=None, description="postgresql://… for the read model; by default a file in the state folder"
    )
    openlineage_url: str | None = Field(
        default=None, description="OpenLineage service, such as Marquez, that receives the lineage of finished runs"
    )
    openlineage_key: SecretStr | None = Field(default=None, description="API key of the OpenLineage service")
    smtp_url: SecretStr | None = Field(
        default=None,
        description="smtp://USER:PASSWORD@HOST:587 or smtps://…:465; server that sends the e-mails of notifications",
    )
    mail_from: str = Field(default="penstock@localhost", description="sender of the e-mails of notifications")
    notify_networks: str = Field(
        default="",
        description="private networks that may receive notifications, such as 10.0.0.0/8, separated by commas",
    )
    notify_patience: float = Field(
        default=86400.0, ge=0, description="seconds after which a notification that nobody accepts is a dead letter"
    )
    max_connections: int = Field(
        default=0, ge=0, description="HTTP connections at the same time; by default half of the file descriptors"
    )
    stream_timeout: float = Field(
        default=60.0, gt=0, description="seconds after which a client that does not read its stream is disconnected"
    )

    def database(self) -> str | Path:
        """Return where the read model is: a URL, or a file in the state folder."""
        url = self.database_url.get_secret_value().strip() if self.database_url else ""
        return url or self.home / "read-model.db"

    def host_names(self) -> list[str]:
        """Return the allowed host names."""
        return [name.strip().lower() for name in self.allowed_hosts.split(",") if name.strip()]
