"""Writes the variables of docker-compose.yml with random secrets: `.venv/bin/python deploy/compose/env.py > .env`."""

import secrets
import sys
from collections.abc import Iterator

from penstock_adapters.nats.auth import generated, keys

NAMES = ("PENSTOCK_TOKEN", "POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY")


def nats() -> Iterator[str]:
    """The seeds of the services and of the issuer, and the public keys for deploy/nats/nats.conf."""
    issuer = keys.new_account()
    for name in generated.SERVICES:
        seed = keys.new_user()
        yield f"NATS_{name.upper()}_SEED={seed}"
        yield f"NATS_{name.upper()}_KEY={keys.public(seed)}"
    yield f"NATS_ISSUER_SEED={issuer}"
    yield f"NATS_ISSUER_KEY={keys.public(issuer)}"
    yield f"NATS_CALLOUT_KEY={keys.public(keys.callout_user(issuer))}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=s{secrets.token_hex(24)}\n" for name in NAMES)
    sys.stdout.writelines(f"{line}\n" for line in nats())
