"""Writes the keys of a NATS system of Penstock, and the configuration of its servers: `penstock admin nats-config`.

accounts.conf   accounts and authorization, to be included in the configuration of every server; nothing secret
SERVICE.nk      seed of each service, for PENSTOCK_NATS_NKEY or PENSTOCK_NATS_SEED
issuer.nk       seed for PENSTOCK_NATS_ISSUER_SEED of the gateways
routes.password password between the servers of a cluster, as the user `route`
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from penstock_adapters.nats.auth import keys
from penstock_adapters.nats.auth.accounts import Login, server_config

SERVICES = ("gateway", "scheduler", "triggers", "cron", "builder", "executor", "artifacts", "admin")
"""Each has a user of its own; `admin` is for backups and for a platform of one process."""

CONFIG, ISSUER, ROUTES = "accounts.conf", "issuer.nk", "routes.password"


def write(folder: Path) -> list[Path]:
    """Create what is missing in a folder, and return all files. Existing keys stay: delete one to replace it.

    Raises:
        InvalidSeedError: a file has no seed.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    seeds = {name: _secret(folder / f"{name}.nk", keys.new_user()) for name in SERVICES}
    issuer = _secret(folder / ISSUER, keys.new_account())
    # nats-server reads what begins with a digit as a number.
    _secret(folder / ROUTES, f"r{secrets.token_hex(24)}")
    config = folder / CONFIG
    config.write_text(configuration(seeds, issuer))
    return [config, *(folder / f"{name}.nk" for name in SERVICES), folder / ISSUER, folder / ROUTES]


def configuration(seeds: dict[str, str], issuer: str) -> str:
    """Return the configuration of the servers for the seeds of services and of the issuer."""
    users = [Login(keys.public(seed)) for seed in seeds.values()]
    about = "# Written by `penstock admin nats-config`. It has public keys only.\n"
    return about + server_config(users, Login(keys.public(keys.callout_user(issuer))), keys.public(issuer))


def _secret(file: Path, new: str) -> str:
    """Return the secret in a file, which is created with a new one if it does not exist."""
    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text().strip()
    with os.fdopen(number, "w") as created:
        created.write(f"{new}\n")
    return new
