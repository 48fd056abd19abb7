"""Settings of all services, read from `PENSTOCK_*` variables by composition roots only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic_settings
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from penstock_core.errors import PenstockError
from penstock_servicekit import process_secrets

_PREFIX = "PENSTOCK_"
_LONGEST_VALUE = 60
"""Characters of a wrong value that an error shows."""


class SettingsError(PenstockError):
    """Settings of a service have values that it cannot use."""

    user_fault = True


class ServiceSettings(BaseSettings):
    """Base of every service's settings."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore", frozen=True)

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
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(str.lower)] = Field(
        default="info", description="debug, info, warning or error"
    )
    log_format: Literal["json", "human", "auto"] = Field(
        default="auto", description="json, human, or auto: human on a terminal"
    )
    health_host: str = Field(default="127.0.0.1", description="address of /healthz, /readyz and /metrics")
    health_port: int | None = Field(
        default=None, ge=0, le=65535, description="port of /healthz, /readyz and /metrics; by default none"
    )
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

    def __init__(self, **values: Any) -> None:
        """Read the settings from the environment; `values` take precedence.

        Raises:
            SettingsError: a variable has a value that cannot be used; names each of them, and what it sets.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(self._explain(dict(one)) for one in error.errors())) from None
        except pydantic_settings.SettingsError as error:
            # Its text has the name of the field; its cause is the error of the JSON parser.
            field = next((name for name in type(self).model_fields if f'"{name}"' in str(error)), "")
            raise SettingsError(f"{_PREFIX}{field.upper()} should be JSON: {error.__cause__}") from None

    @classmethod
    def _explain(cls, error: dict[str, Any]) -> str:
        """Return what is wrong with one variable, such as `PENSTOCK_GRACE should be a valid number, got '5s' (…)`."""
        field = str(error["loc"][0])
        variable = _PREFIX + field.upper()
        rule = error["msg"].removeprefix("Input ").partition(", unable to parse")[0]
        value = repr(error["input"])
        shown = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}…"
        got = "" if process_secrets.SECRET.fullmatch(variable) else f", got {shown}"
        return f"{variable} {rule}{got} ({cls.model_fields[field].description})"

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
        taken = {name.removeprefix(_PREFIX).lower(): value for name, value in process_secrets.taken().items()}
        return init_settings, env_settings, InitSettingsSource(settings_cls, taken)

    def pool_names(self) -> list[str]:
        """The pools as a list."""
        return [name.strip() for name in self.pools.split(",") if name.strip()]
