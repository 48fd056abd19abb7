"""The secrets that a service can use, as it is configured."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field, SecretStr

from penstock_adapters.nats.bus import Bus
from penstock_adapters.secrets.environment import EnvironmentSecrets
from penstock_adapters.secrets.folder import FolderSecrets
from penstock_adapters.secrets.keys import GivenKeys
from penstock_adapters.secrets.resolver import Secrets
from penstock_adapters.secrets.stored import StoredSecrets
from penstock_core.secrets.records import SecretSource
from penstock_servicekit import process_secrets
from penstock_servicekit.settings import ServiceSettings


class SecretSettings(ServiceSettings):
    """Settings of services that use secrets."""

    secrets_key_file: Path | None = Field(
        default=None,
        description="file with the keys of stored secrets, outside of the state folder; by default in "
        "~/.config/penstock/secret-keys",
    )
    secrets_key: SecretStr | None = Field(
        default=None,
        description="keys of stored secrets, separated by spaces, instead of a file; the first one is used",
    )
    secrets_folder: Path | None = Field(
        default=None, description="folder with secrets in files, FOLDER/PROJECT/NAME; by default none"
    )
    secrets_kubernetes: str = Field(
        default="",
        description="namespace of Kubernetes with the Secrets `penstock-secrets-PROJECT`, whose keys are names of "
        "secrets; by default none",
    )


def open_secrets(bus: Bus, settings: SecretSettings) -> Secrets:
    """Return the secrets of a service. Those in its environment have the prefix `PENSTOCK_SECRET_`."""
    others: list[SecretSource] = [EnvironmentSecrets({**os.environ, **process_secrets.taken()})]
    if settings.secrets_folder is not None:
        others.append(FolderSecrets(settings.secrets_folder))
    if settings.secrets_kubernetes:
        from penstock_adapters.argo.secret_source import KubernetesSecrets  # needs the extra `argo`

        others.append(KubernetesSecrets(settings.secrets_kubernetes))
    given = settings.secrets_key.get_secret_value() if settings.secrets_key is not None else ""
    return Secrets(StoredSecrets(bus, GivenKeys(given) if given else settings.secrets_key_file), others)
