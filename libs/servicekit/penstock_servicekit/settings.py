"""Settings of all services, read from `PENSTOCK_*` variables by composition roots only."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from penstock_servicekit import process_secrets


class ServiceSettings(BaseSettings):
    """Base of every service's settings."""

    model_config = SettingsConfigDict(env_prefix="PENSTOCK_", extra="ignore", frozen=True)

    home: Path = Field(default=Path(".penstock"), description="state folder")
    nats_url: SecretStr | None = Field(
        default=None,
        description="URLs of the servers of a NATS system, separated by commas; by default the embedded server",
    )
    nats_creds: Path | None = Field(default=None, description="NATS credentials file, with a JWT and its seed")
    nats_nkey: Path | None = Field(default=None, description="file with the seed of an nkey, to authenticate to NATS")
    nats_seed: SecretStr | None = Field(default=None, description="the seed itself, instead of a file with it")
    nats_ca: Path | None = Field(
        default=None, description="certificates of the authorities that sign those of NATS servers; implies TLS"
    )
    nats_cert: Path | None = Field(default=None, description="client certificate for NATS servers")
    nats_key: Path | None = Field(default=None, description="private key of that certificate")
    log_level: str = Field(default="info", description="debug, info, warning or error")
    log_format: Literal["json", "human", "auto"] = Field(
        default="auto", description="json, human, or auto: human on a terminal"
    )
    health_host: str = Field(default="127.0.0.1", description="address of /healthz, /readyz and /metrics")
    health_port: int | None = Field(default=None, description="port of /healthz, /readyz and /metrics; by default none")
    replicas: int = Field(default=1, ge=1, le=5, description="replicas of each stream in a NATS cluster")
    pools: str = Field(default="default", description="pools of executors, separated by commas")
    ack_wait: float = Field(
        default=6.0, gt=0.5, description="seconds until unacknowledged messages are redelivered to another replica"
    )
    environments_size: int = Field(
        default=50 * 1024**3,
        ge=0,
        description="bytes of installed environments; beyond it, those that were not used for longest are removed",
    )
    start_patience: float = Field(default=60.0, ge=0, description="seconds a service waits for NATS when it starts")
    reconnect_patience: float = Field(
        default=300.0, gt=0, description="seconds a service tries to reconnect to NATS until it exits with an error"
    )
    stop_timeout: float = Field(default=20.0, gt=0, description="seconds a service may take to stop gracefully")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the secrets that were taken out of the environment, too."""
        taken = {name.removeprefix("PENSTOCK_").lower(): value for name, value in process_secrets.taken().items()}
        return init_settings, env_settings, InitSettingsSource(settings_cls, taken)

    def pool_names(self) -> list[str]:
        """The pools as a list."""
        return [name.strip() for name in self.pools.split(",") if name.strip()]
